// llama_peer MODEL.gguf WORKLOADS: llama.cpp on its first Vulkan device, speaking the line protocol of README.md.
#include "ggml-backend.h"
#include "llama.h"
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using Texts = std::vector<std::vector<int>>;

constexpr int HIDDEN = 384;
constexpr int ROWS = 4096, INNER = 384, OUTER = 1536; // the product of W5
constexpr int BATCH_TOKENS = 512;                     // llama.cpp's own default
constexpr int BATCH_TEXTS = 64;

static Texts read_texts(const std::string & path) {
    Texts texts;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream numbers(line);
        texts.emplace_back();
        for (int id; numbers >> id;) texts.back().push_back(id);
    }
    return texts;
}

static ggml_backend_dev_t first_vulkan_device() {
    ggml_backend_load_all();
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        auto device = ggml_backend_dev_get(i);
        if (std::string(ggml_backend_dev_name(device)).rfind("Vulkan", 0) == 0) return device;
    }
    throw std::runtime_error("llama.cpp finds no Vulkan device");
}

struct Peer {
    ggml_backend_dev_t device = first_vulkan_device();
    llama_context * context;
    llama_batch batch = llama_batch_init(BATCH_TOKENS, 0, 1);
    ggml_backend_t backend = nullptr;
    ggml_cgraph * product = nullptr;

    explicit Peer(const char * path) {
        ggml_backend_dev_t devices[] = {device, nullptr};
        auto model_options = llama_model_default_params();
        model_options.devices = devices;
        model_options.n_gpu_layers = 99; // all of them
        auto model = llama_model_load_from_file(path, model_options);
        if (!model) throw std::runtime_error("llama.cpp cannot load the model");
        auto options = llama_context_default_params();
        options.n_ctx = options.n_batch = options.n_ubatch = BATCH_TOKENS;
        options.n_seq_max = BATCH_TEXTS;
        options.kv_unified = true;
        options.embeddings = true;
        options.pooling_type = LLAMA_POOLING_TYPE_MEAN;
        context = llama_init_from_model(model, options);
        if (!context) throw std::runtime_error("llama.cpp cannot make a context");
        prepare_product();
    }

    // Texts go into batches whole and unpadded, in their order, as many as fit.
    std::vector<float> embed(const Texts & texts) {
        std::vector<float> rows(texts.size() * HIDDEN);
        for (size_t next = 0; next < texts.size();) {
            const size_t first = next;
            batch.n_tokens = 0;
            while (next < texts.size() && next - first < BATCH_TEXTS && batch.n_tokens + texts[next].size() <= BATCH_TOKENS) {
                add(texts[next], next - first);
                next++;
            }
            if (llama_encode(context, batch)) throw std::runtime_error("llama_encode failed");
            for (size_t text = first; text < next; text++) normalize(llama_get_embeddings_seq(context, text - first), &rows[text * HIDDEN]);
        }
        return rows;
    }

    void add(const std::vector<int> & text, int sequence) {
        for (size_t position = 0; position < text.size(); position++) {
            const int token = batch.n_tokens++;
            batch.token[token] = text[position];
            batch.pos[token] = position;
            batch.n_seq_id[token] = 1;
            batch.seq_id[token][0] = sequence;
            batch.logits[token] = 1;
        }
    }

    static void normalize(const float * from, float * to) {
        double square = 0;
        for (int i = 0; i < HIDDEN; i++) square += (double) from[i] * from[i];
        for (int i = 0; i < HIDDEN; i++) to[i] = from[i] / std::sqrt(square);
    }

    void prepare_product() {
        backend = ggml_backend_dev_init(device, nullptr);
        auto tensors = ggml_init({ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true});
        auto b = ggml_new_tensor_2d(tensors, GGML_TYPE_F32, INNER, OUTER); // ggml keeps weights transposed
        auto a = ggml_new_tensor_2d(tensors, GGML_TYPE_F32, INNER, ROWS);
        product = ggml_new_graph(tensors);
        ggml_build_forward_expand(product, ggml_mul_mat(tensors, b, a));
        ggml_backend_alloc_ctx_tensors(tensors, backend);
        const std::vector<float> halves(INNER * ROWS, 0.5f);
        ggml_backend_tensor_set(b, halves.data(), 0, ggml_nbytes(b));
        ggml_backend_tensor_set(a, halves.data(), 0, ggml_nbytes(a));
    }

    void multiply() {
        if (ggml_backend_graph_compute(backend, product)) throw std::runtime_error("ggml cannot compute the product");
    }
};

static double run(Peer & peer, const std::string & workloads, const std::string & workload, const std::string & file) {
    const Texts texts = read_texts(workloads + "/" + workload + ".ids");
    std::vector<float> rows;
    const auto begin = std::chrono::steady_clock::now();
    if (workload == "W5") peer.multiply();
    else rows = peer.embed(texts);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (!file.empty()) std::ofstream(file, std::ios::binary).write((const char *) rows.data(), rows.size() * sizeof(float));
    return seconds;
}

int main(int count, char ** arguments) try {
    if (count != 3) throw std::runtime_error("give a model and the folder of the workloads");
    llama_log_set([](ggml_log_level level, const char * text, void *) { if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr); }, nullptr);
    llama_backend_init();
    Peer peer(arguments[1]);
    printf("{\"version\": \"llama.cpp, ggml %s\", \"adapter\": \"%s\"}\n", ggml_version(), ggml_backend_dev_description(peer.device));
    fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string word, workload, file;
        words >> word >> workload >> file;
        try {
            printf("{\"seconds\": %.9f}\n", run(peer, arguments[2], workload, file));
        } catch (const std::exception & error) {
            printf("{\"error\": \"%s\"}\n", error.what());
        }
        fflush(stdout);
    }
    _Exit(0); // the driver's threads do not always end
} catch (const std::exception & error) {
    printf("{\"error\": \"%s\"}\n", error.what());
    return 1;
}
