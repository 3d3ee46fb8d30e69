/* Compiles every .hlsl file of a folder by one of Microsoft's compilers: `hlsl.exe dxc FOLDER` for shader model 6.0, or 6.2 where a file has
   numbers of 16 bits, `hlsl.exe fxc FOLDER` for 5.1, which has neither these nor wave operations: files with them are left out. A Windows program; shader_compilers.sh runs it under Wine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

/* The part of each COM interface that is used here. */
typedef struct Blob Blob;
struct Blob {
    struct {
        void *query_interface, *add_ref;
        ULONG(WINAPI *release)(Blob *);
        const char *(WINAPI *pointer)(Blob *);
        SIZE_T(WINAPI *size)(Blob *);
    } *methods;
};
typedef struct Result Result;
struct Result {
    struct {
        void *query_interface, *add_ref;
        ULONG(WINAPI *release)(Result *);
        HRESULT(WINAPI *status)(Result *, HRESULT *);
        HRESULT(WINAPI *result)(Result *, Blob **);
        HRESULT(WINAPI *errors)(Result *, Blob **);
    } *methods;
};
typedef struct { const void *pointer; SIZE_T size; UINT encoding; } Source;
typedef struct Compiler Compiler;
struct Compiler {
    struct {
        void *unused[3];
        HRESULT(WINAPI *compile)(Compiler *, const Source *, const WCHAR **, UINT, void *, const GUID *, void **);
    } *methods;
};
typedef HRESULT(WINAPI *Fxc)(const void *, SIZE_T, const char *, void *, void *, const char *, const char *, UINT, UINT, Blob **, Blob **);
typedef HRESULT(WINAPI *Create)(const GUID *, const GUID *, void **);

static const GUID COMPILER_CLASS = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID COMPILER = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID RESULT = {0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};

enum { ENABLE_STRICTNESS = 1 << 11 /* as wgpu asks for */ };

static int report(const char *compiler, const char *name, HRESULT status, Blob *errors) {
    if (SUCCEEDED(status)) return 1;
    printf("%s refused %s: %.*s\n", compiler, name, errors ? (int)errors->methods->size(errors) : 0,
           errors ? errors->methods->pointer(errors) : "");
    return 0;
}

static int by_fxc(Fxc fxc, const char *name, const char *text, size_t size) {
    Blob *code = NULL, *errors = NULL;
    HRESULT status = fxc(text, size, name, NULL, NULL, "main", "cs_5_1", ENABLE_STRICTNESS, 0, &code, &errors);
    int passed = report("FXC", name, status, errors);
    if (code) code->methods->release(code);
    if (errors) errors->methods->release(errors);
    return passed;
}

static int by_dxc(Compiler *dxc, const char *name, const char *text, size_t size) {
    /* The language of 2018, as wgpu asks for: in later ones `?:` takes no vectors. */
    int is_half = strstr(text, "half") != NULL;
    const WCHAR *model = is_half ? L"cs_6_2" : L"cs_6_0";
    const WCHAR *arguments[] = {L"-E", L"main", L"-T", model, L"-HV", L"2018", L"-no-warnings", L"-Ges", L"-enable-16bit-types"};
    Source source = {text, size, 65001 /* UTF-8 */};
    Result *result = NULL;
    Blob *errors = NULL;
    HRESULT status = dxc->methods->compile(dxc, &source, arguments, is_half ? 9 : 8, NULL, &RESULT, (void **)&result);
    if (SUCCEEDED(status)) {
        result->methods->status(result, &status);
        if (FAILED(status)) result->methods->errors(result, &errors);
    }
    int passed = report("DXC", name, status, errors);
    if (errors) errors->methods->release(errors);
    if (result) result->methods->release(result);
    return passed;
}

int main(int count, char **arguments) {
    HMODULE old = LoadLibraryA("d3dcompiler_47.dll"), new = LoadLibraryA("dxcompiler.dll");
    Fxc fxc = old ? (Fxc)(void *)GetProcAddress(old, "D3DCompile") : NULL;
    Create create = new ? (Create)(void *)GetProcAddress(new, "DxcCreateInstance") : NULL;
    Compiler *dxc = NULL;
    int is_dxc = count == 3 && !strcmp(arguments[1], "dxc");
    if (count != 3 || !fxc || !create || FAILED(create(&COMPILER_CLASS, &COMPILER, (void **)&dxc))) {
        printf("error: hlsl.exe needs `dxc` or `fxc` and a folder, and d3dcompiler_47.dll and dxcompiler.dll beside it\n");
        return 2;
    }
    char path[MAX_PATH];
    snprintf(path, sizeof path, "%s/*.hlsl", arguments[2]);
    WIN32_FIND_DATAA found;
    HANDLE search = FindFirstFileA(path, &found);
    int passed = 0, asked = 0;
    for (BOOL more = search != INVALID_HANDLE_VALUE; more; more = FindNextFileA(search, &found)) {
        snprintf(path, sizeof path, "%s/%s", arguments[2], found.cFileName);
        FILE *file = fopen(path, "rb");
        char *text = calloc(1, found.nFileSizeLow + 1);
        if (!file || !text || fread(text, 1, found.nFileSizeLow, file) != found.nFileSizeLow) {
            printf("error: %s cannot be read\n", path);
            return 2;
        }
        fclose(file);
        if (is_dxc || !(strstr(text, "Wave") || strstr(text, "half"))) {
            asked++;
            passed += is_dxc ? by_dxc(dxc, found.cFileName, text, found.nFileSizeLow) : by_fxc(fxc, found.cFileName, text, found.nFileSizeLow);
        }
        fflush(stdout);
        free(text);
    }
    printf("%s: %d of %d passed\n", is_dxc ? "DXC" : "FXC", passed, asked);
    return asked == 0 || passed < asked;
}
