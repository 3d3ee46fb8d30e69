//! Files in the place of `pytorch_model.bin` that are damaged, or made to do harm: each is refused with the reason, none runs, hangs,
//! panics or takes memory beyond its own size.

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::compare::Table;
use common::torch_file::{Directory, Pickle, Tensor, local_header, records, zip};
use minilm::checkpoint::Tensors;

/// What is wrong with a file, the file, and words that the error must have.
type Hostile = (&'static str, fn() -> Vec<u8>, &'static [&'static str]);

#[rustfmt::skip]
const ARCHIVES: &[Hostile] = &[
    ("empty", Vec::new, &["empty file"]),
    ("text", || b"version https://git-lfs.github.com/spec/v1\n".to_vec(), &["expected a zip archive", "another format", "download"]),
    ("before PyTorch 1.6", || b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec(), &["PyTorch before 1.6", "save it"]),
    ("before PyTorch 1.6, protocol 4",
        || b"\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x04".to_vec(), &["PyTorch before 1.6", "save it"]),
    ("cut", || { let file = sound(); file[..file.len() - 30].to_vec() }, &["cut or damaged", "download the file again"]),
    ("only the head", || sound()[..100].to_vec(), &["cut or damaged"]),
    ("directory beyond the file", || directory(|directory| directory.offset = 1 << 40), &["cut or damaged"]),
    ("directory elsewhere", || directory(|directory| directory.offset = 0), &["cut or damaged"]),
    ("a record more than there is", || directory(|directory| directory.count += 1), &["5 records by its directory, found 4"]),
    ("a record less than there is", || directory(|directory| directory.count -= 1), &["3 records by its directory, found 4"]),
    ("billions of records", || directory(|directory| directory.count = 5_000_000_000), &["5000000000 records", "at most 65536"]),
    ("many records", || directory(|directory| directory.entries = vec![directory.entries[0].clone(); 70_000]), &["found 65536"]),
    ("record beyond the file", || directory(|directory| directory.entries[2].offset = 1 << 31), &["`archive/data/0`", "2147483648"]),
    ("record beyond any file", || directory(|directory| (directory.entries[2].offset, directory.zip64) = (u64::MAX, true)),
        &["`archive/data/0`", "18446744073709551615"]),
    ("record longer than the file", || directory(|directory| resize(directory, 1 << 30)), &["`archive/data/0`", "1073741824 bytes"]),
    ("record longer than any file", || directory(|directory| { resize(directory, u64::MAX - 8); directory.zip64 = true; }),
        &["`archive/data/0`", "18446744073709551607 bytes"]),
    ("record into the next", || directory(|directory| resize(directory, 100)), &["`archive/data/0`", "ends at byte", "next one starts"]),
    ("last record into the directory", || directory(|directory| {
        let last = directory.entries.last_mut().unwrap();
        (last.size, last.stored) = (40, 40);
    }), &["`archive/version`", "ends at byte", "next one starts"]),
    ("record inside another", || {
        let name = "archive/data/1";
        let inner = [local_header(name, 0), name.into(), vec![0; 24]].concat();
        zip(&records(Pickle::new(2).put(b"}").items(&[tensor()]).stop(), &[inner]), |directory| {
            let mut entry = directory.entries[2].clone();
            (entry.name, entry.size, entry.stored) = (name.into(), 24, 24);
            entry.offset = (entry.offset + 30 + 14 + 4).next_multiple_of(64);
            directory.entries.push(entry);
            directory.count += 1;
        })
    }, &["`archive/data/0`", "ends at byte", "next one starts"]),
    ("record of another name", || directory(|directory| directory.entries[2].name = "archive/data/7".into()),
        &["`archive/data/7`", "is called `archive/data/0` where it lies"]),
    ("two records of a name", || {
        let mut records = records(Pickle::new(2).put(b"}").items(&[tensor()]).stop(), &[vec![0; 24]]);
        records.push(records[2].clone());
        zip(&records, |_| ())
    }, &["`archive/data/0`", "twice"]),
    ("compressed", || directory(|directory| directory.entries[2].method = 8), &["`archive/data/0`", "compressed"]),
    ("encrypted", || directory(|directory| directory.entries[2].flags |= 1), &["`archive/data/0`", "encrypted"]),
    ("two sizes", || directory(|directory| directory.entries[2].stored = 20), &["`archive/data/0`", "20 bytes", "its size 24"]),
    ("no pickle", || zip(&records(Vec::new(), &[])[1..], |_| ()), &["expected one record `data.pkl`", "torch.save"]),
    ("no records", || zip(&[], |_| ()), &["cut or damaged"]),
    ("two pickles", || zip(&[records(Vec::new(), &[]), vec![("other/data.pkl".into(), Vec::new())]].concat(), |_| ()),
        &["expected one record `data.pkl`", "several"]),
    ("big-endian", || {
        let mut records = records(Vec::new(), &[]);
        records[1].1 = b"big".to_vec();
        zip(&records, |_| ())
    }, &["byte order \"big\"", "expected \"little\""]),
];

#[rustfmt::skip]
const PICKLES: &[Hostile] = &[
    ("runs a command", || b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.".to_vec(), &["imports `posix.system` at byte 2", "do not use files"]),
    ("runs a command, protocol 4", || b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.".to_vec(), &["imports `os.system`"]),
    ("runs a command in a state dict", || {
        let mut pickle = Pickle::new(2);
        pickle.put(b"}").items(&[tensor()]).text("x").import("builtins", "eval").text("1").put(b"\x85Rs").stop()
    }, &["imports `builtins.eval`"]),
    ("runs a command by an attribute", || Pickle::new(2).import("torch._utils", "_rebuild_tensor_v2.__globals__").stop(),
        &["imports `torch._utils._rebuild_tensor_v2.__globals__`"]),
    ("import with a line break", || b"\x80\x04\x8c\x03a\nb\x8c\x01\x1b\x93.".to_vec(), &["imports `a\\nb.\\u{1b}`"]),
    ("import of a long name", || [b"\x80\x02c".to_vec(), vec![b'a'; 100_000], b"\nb\n.".to_vec()].concat(), &["aaa...`"]),
    ("quantized", || Pickle::new(2).import("torch._utils", "_rebuild_qtensor").stop(), &["imports `torch._utils._rebuild_qtensor`"]),
    ("a whole model", || Pickle::new(2).import("transformers.models.bert.modeling_bert", "BertModel").put(b")\x81.").bytes.clone(),
        &["imports `transformers.models.bert.modeling_bert.BertModel`", "`state_dict()` alone"]),
    ("another storage", || Pickle::new(2).import("torch", "QInt8Storage").stop(), &["imports `torch.QInt8Storage`"]),
    ("makes an object", || Pickle::new(2).ordered_dict().put(b")\x81.").bytes.clone(), &["instruction 0x81 at byte", "do not use files"]),
    ("import by a number", || b"\x80\x04K\x01K\x02\x93.".to_vec(), &["import by something else than a name"]),
    ("no pickle at all", Vec::new, &["cut after 0 bytes"]),
    ("cut", || b"\x80\x02}q".to_vec(), &["cut after 4 bytes"]),
    ("cut in a text", || b"\x80\x02X\xff\xff\xff\xffabc".to_vec(), &["cut after 10 bytes"]),
    ("cut in a name", || b"\x80\x02ctorch".to_vec(), &["cut after 8 bytes"]),
    ("without an end", || b"\x80\x02}".to_vec(), &["cut after 3 bytes"]),
    ("too long", || vec![b'N'; 512 << 10 | 1], &["524289 bytes", "at most 524288"]),
    ("as long as may be", || vec![b'N'; 512 << 10], &["cut after 524288 bytes"]),
    ("values without end", || { let mut bytes = b"}".repeat(1 << 18); bytes.extend(b"\x94".repeat(1 << 18)); bytes }, &["cut after"]),
    ("nested deep", || [b")".to_vec(), vec![0x85; 1 << 18], b".".to_vec()].concat(), &["expected a state dict"]),
    ("dicts nested deep", || [b"}K\x01".repeat(1 << 16), b"N".to_vec(), b"s".repeat(1 << 16), b".".to_vec()].concat(),
        &["expected a state dict", "[\"?\"]"]),
    ("marks without end", || vec![b'('; 1 << 18], &["cut after"]),
    ("too few values", || b"\x80\x02K\x01\x87.".to_vec(), &["too few values at byte 4"]),
    ("takes what is before the mark", || b"\x80\x02K\x01(\x85.".to_vec(), &["too few values at byte 5"]),
    ("nothing at all", || b"\x80\x02.".to_vec(), &["too few values at byte 2"]),
    ("no mark", || b"\x80\x02K\x01t.".to_vec(), &["no mark at byte 4"]),
    ("recalls what was never kept", || b"\x80\x02j\xff\xff\xff\xff.".to_vec(), &["the value 4294967295, which was never kept"]),
    ("a text of other bytes", || b"\x80\x02X\x01\0\0\0\xff.".to_vec(), &["not UTF-8 at byte 2"]),
    ("a large integer", || b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\0\x01.".to_vec(), &["an integer of 9 bytes at byte 2"]),
    ("keys without values", || b"\x80\x02}(K\x01u.".to_vec(), &["keys and values"]),
    ("keys of a text", || b"\x80\x04\x8c\x01aK\x01K\x02s.".to_vec(), &["keys and values"]),
    ("items of a dict", || b"\x80\x02}K\x01a.".to_vec(), &["items of something else than a list"]),
    ("attributes of a list", || b"\x80\x02]}b.".to_vec(), &["attributes of something else than a dict"]),
    ("calls a text", || b"\x80\x04\x8c\x01a)R.".to_vec(), &["a call that makes no tensor"]),
    ("calls without arguments", || Pickle::new(2).import("collections", "OrderedDict").int(1).put(b"R.").bytes.clone(),
        &["a call without a tuple"]),
    ("calls with others' arguments", || Pickle::new(2).import("collections", "OrderedDict").ints(&[1]).put(b"R.").bytes.clone(),
        &["a call that makes no tensor"]),
    ("a parameter of a number", || Pickle::new(2).import("torch._utils", "_rebuild_parameter").ints(&[1]).put(b"R.").bytes.clone(),
        &["a call that makes no tensor"]),
    ("a storage by a text", || b"\x80\x04\x8c\x01aQ.".to_vec(), &["a storage that is not described by a tuple"]),
    ("a list", || b"\x80\x02].".to_vec(), &["expected a state dict", "another value"]),
    ("a tensor", || Pickle::new(2).tensor(&tensor()).stop(), &["expected a state dict", "another value"]),
    ("no tensors", || Pickle::new(2).put(b"}").text("epoch").int(1).put(b"s").stop(), &["a dict without tensors", "[\"epoch\"]"]),
];

/// What a tensor's description says that cannot be, and words that the error must have.
type Lie = (&'static str, fn(&mut Tensor), &'static [&'static str]);

#[rustfmt::skip]
const TENSORS: &[Lie] = &[
    ("another storage", |tensor| tensor.key = "9".into(), &["`w` is missing", "no record `data/9`"]),
    ("a storage elsewhere", |tensor| tensor.key = "../data.pkl".into(), &["`w` is missing", "no record `data/../data.pkl`"]),
    ("more numbers", |tensor| tensor.numbers = 7, &["`w` has 24 bytes in the record `data/0`", "expected 7 numbers of F32"]),
    ("no numbers", |tensor| tensor.numbers = -6, &["`w` has 24 bytes", "expected -6 numbers"]),
    ("numbers beyond reason", |tensor| tensor.numbers = i64::MAX, &["`w` has 24 bytes", "expected 9223372036854775807 numbers"]),
    ("numbers of another type", |tensor| tensor.class = "DoubleStorage", &["`w` has 24 bytes", "expected 6 numbers of F64"]),
    ("more rows", |tensor| tensor.shape[0] = 3, &["`w` of shape [3, 3] with the strides [3, 1] from number 0", "storage of 6"]),
    ("an offset", |tensor| tensor.offset = 1, &["`w` of shape [2, 3]", "from number 1", "storage of 6"]),
    ("an offset before", |tensor| tensor.offset = -1, &["`w` of shape [2, 3]", "from number -1"]),
    ("an offset beyond reason", |tensor| tensor.offset = i64::MAX, &["from number 9223372036854775807"]),
    ("a stride", |tensor| tensor.strides[0] = 4, &["with the strides [4, 1]", "storage of 6"]),
    ("a stride beyond reason", |tensor| tensor.strides[0] = i64::MAX, &["with the strides [9223372036854775807, 1]", "storage of 6"]),
    ("strides beyond reason", |tensor| tensor.strides = vec![i64::MAX; 2], &["does not fit into its storage of 6"]),
    ("a stride backwards", |tensor| tensor.strides[0] = -3, &["`w` has sizes or strides that are no numbers of 0 or more"]),
    ("a size below 0", |tensor| tensor.shape[0] = -2, &["`w` has sizes or strides that are no numbers of 0 or more"]),
    ("fewer strides", |tensor| tensor.strides.truncate(1), &["`w` has 2 sizes and 1 strides"]),
    ("many dimensions", |tensor| (tensor.shape, tensor.strides) = (vec![1; 9], vec![1; 9]), &["`w` has 9 sizes and 9 strides", "at most 8"]),
    ("a shape that overflows", |tensor| (tensor.shape, tensor.strides) = (vec![1 << 32; 2], vec![0; 2]), &["impossible shape"]),
    ("a shape that overflows though empty", |tensor| (tensor.shape, tensor.strides) = (vec![0, 1 << 62, 1 << 62], vec![1; 3]),
        &["impossible shape"]),
    // These are only an error for who reads them.
    ("a shape of nothing", |tensor| (tensor.shape, tensor.strides) = (vec![1 << 28, 1 << 28], vec![0; 2]),
        &["`w` has shape [268435456, 268435456] with the strides [0, 0]", "contiguous()"]),
    ("a row many times", |tensor| (tensor.shape, tensor.strides) = (vec![4, 3], vec![0, 1]), &["`w` has shape [4, 3] with the strides [0, 1]"]),
    ("three dimensions, not row by row", |tensor| (tensor.shape, tensor.strides) = (vec![3, 1, 2], vec![1, 1, 3]),
        &["`w` has shape [3, 1, 2] with the strides [1, 1, 3]"]),
    ("half of a number", |tensor| (tensor.class, tensor.numbers) = ("HalfStorage", 6), &["`w` has 24 bytes", "expected 6 numbers of F16"]),
];

fn tensor() -> Tensor {
    Tensor::new("w", "FloatStorage", "0", &[2, 3])
}

/// A file of one tensor, with the numbers from 1 to 6.
fn sound() -> Vec<u8> {
    directory(|_| ())
}

fn directory(change: impl FnOnce(&mut Directory)) -> Vec<u8> {
    around(Pickle::new(2).put(b"}").items(&[tensor()]).stop(), change)
}

fn around(pickle: Vec<u8>, change: impl FnOnce(&mut Directory)) -> Vec<u8> {
    let numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0_f32].map(f32::to_le_bytes).concat();
    zip(&records(pickle, &[numbers]), change)
}

fn resize(directory: &mut Directory, size: u64) {
    (directory.entries[2].size, directory.entries[2].stored) = (size, size);
}

fn read(bytes: &[u8]) -> minilm::Result<Vec<f32>> {
    read_in(tempfile::tempdir().unwrap().path(), bytes)
}

/// Opens a file that is written into the folder, and reads all of its tensors.
fn read_in(folder: &Path, bytes: &[u8]) -> minilm::Result<Vec<f32>> {
    let path = folder.join("pytorch_model.bin");
    // Some file systems wait for the disk where a file is written over.
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
    let tensors = Tensors::open(folder)?;
    let values = tensors.names().map(|name| tensors.get(name)?.values()).collect::<minilm::Result<Vec<_>>>()?;
    Ok(values.concat())
}

fn refused(table: &mut Table, case: &str, bytes: &[u8], words: &[&str]) {
    match catch_unwind(AssertUnwindSafe(|| read(bytes))) {
        Err(_) => table.fail(case, "panicked"),
        Ok(Ok(values)) => table.fail(case, format!("was read: {values:?}")),
        Ok(Err(error)) => {
            let message = error.to_string();
            let missing: Vec<_> = ["pytorch_model.bin"].iter().chain(words).filter(|&&word| !message.contains(word)).collect();
            table.check(case, missing.is_empty() && message.len() < 500, format!("{missing:?} not in: {message}"));
        }
    }
}

#[test]
fn damaged_files_are_refused_with_the_reason() {
    let mut table = Table::new("damaged files");
    for (case, file, words) in ARCHIVES {
        refused(&mut table, case, &file(), words);
    }
    for (case, pickle, words) in PICKLES {
        refused(&mut table, case, &around(pickle(), |_| ()), words);
    }
    for (case, lie, words) in TENSORS {
        let mut tensor = tensor();
        lie(&mut tensor);
        refused(&mut table, case, &around(Pickle::new(2).put(b"}").items(&[tensor]).stop(), |_| ()), words);
    }
    refused(&mut table, "twice", &around(Pickle::new(2).put(b"}").items(&[tensor(), tensor()]).stop(), |_| ()), &["`w` is there twice"]);
    table.finish();
    assert_eq!(read(&sound()).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

/// Each instruction that torch does not use, whatever it would do in Python, is refused by its code.
#[test]
fn no_other_instruction_is_known() {
    const KNOWN: &[u8] = b"\x80\x95.N\x88\x89JKM\x8aGX\x8c()\x85\x86\x87t]ae}suqr\x94hjc\x93QRb";
    let mut table = Table::new("instructions");
    for instruction in (0..=255).filter(|instruction| !KNOWN.contains(instruction)) {
        let pickle = [&[0x80, 2, b'}', b'}', instruction][..], &[0; 16]].concat();
        let case = format!("instruction 0x{instruction:02x} at byte 4");
        refused(&mut table, &case, &around(pickle, |_| ()), &[&case]);
    }
    table.finish();
}

/// A file cut anywhere, or with any byte changed, is refused or read, and nothing worse.
#[test]
fn no_damage_makes_it_panic() {
    let mut pickle = Pickle::new(2);
    pickle.ordered_dict().items(&[tensor(), Tensor::new("b", "FloatStorage", "0", &[6])]).metadata();
    let file = around(pickle.stop(), |_| ());
    let (mut table, folder) = (Table::new("damage anywhere"), tempfile::tempdir().unwrap());
    let mut check = |case: String, bytes: &[u8], may_be_read: bool| match catch_unwind(AssertUnwindSafe(|| read_in(folder.path(), bytes))) {
        Err(_) => table.fail(case, "panicked"),
        Ok(Ok(values)) => table.check(case, may_be_read, format!("was read: {values:?}")),
        Ok(Err(error)) => table.check(case, error.to_string().contains("pytorch_model.bin"), error),
    };
    assert_eq!(read(&file).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].repeat(2));
    for length in 0..file.len() {
        check(format!("cut to {length}"), &file[..length], false);
    }
    for at in 0..file.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut file = file.clone();
            file[at] ^= flip;
            check(format!("byte {at} ^ {flip}"), &file, true);
        }
    }
    table.finish();
}
