//! Files as `torch.save` writes them, and pickles and zip archives as it never would: every part can be changed on its way.

/// A pickle, instruction by instruction.
pub struct Pickle {
    pub bytes: Vec<u8>,
    /// 2 as torch's, or 4 with shorter texts, frames and a memo that counts by itself.
    protocol: u8,
    kept: Vec<String>,
}

impl Pickle {
    pub fn new(protocol: u8) -> Self {
        let frame: &[u8] = if protocol < 4 { &[] } else { &[0x95, 0, 0, 0, 0, 0, 0, 0, 0] };
        Self { bytes: [&[0x80, protocol], frame].concat(), protocol, kept: Vec::new() }
    }

    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    /// The instruction that keeps the last value.
    fn keep(&mut self, value: &str) -> &mut Self {
        let index = self.kept.len();
        self.kept.push(value.to_owned());
        match index {
            _ if self.protocol >= 4 => self.put(&[0x94]),
            0..256 => self.put(&[b'q', index as u8]),
            _ => self.put(b"r").put(&(index as u32).to_le_bytes()),
        }
    }

    /// A value that is written where it comes first and recalled later.
    fn once(&mut self, value: String, write: impl FnOnce(&mut Self)) -> &mut Self {
        match self.kept.iter().position(|kept| *kept == value) {
            Some(index @ 0..256) => self.put(&[b'h', index as u8]),
            Some(index) => self.put(b"j").put(&(index as u32).to_le_bytes()),
            None => {
                write(self);
                self.keep(&value)
            }
        }
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.once(format!("text {text}"), |pickle| match pickle.protocol {
            4 => drop(pickle.put(&[0x8c, text.len() as u8]).put(text.as_bytes())),
            _ => drop(pickle.put(b"X").put(&(text.len() as u32).to_le_bytes()).put(text.as_bytes())),
        })
    }

    pub fn int(&mut self, value: i64) -> &mut Self {
        match value {
            0..256 => self.put(&[b'K', value as u8]),
            256..65536 => self.put(b"M").put(&(value as u16).to_le_bytes()),
            -0x8000_0000..0x8000_0000 => self.put(b"J").put(&(value as i32).to_le_bytes()),
            _ => self.put(&[0x8a, 8]).put(&value.to_le_bytes()),
        }
    }

    pub fn ints(&mut self, values: &[i64]) -> &mut Self {
        let (mark, tuple): (&[u8], &[u8]) = match values.len() {
            0 => (b"", b")"),
            1..=3 => (b"", &[0x84 + values.len() as u8]),
            _ => (b"(", b"t"),
        };
        values.iter().fold(self.put(mark), |pickle, &value| pickle.int(value)).put(tuple).keep("tuple")
    }

    pub fn import(&mut self, module: &str, name: &str) -> &mut Self {
        self.once(format!("import {module} {name}"), |pickle| match pickle.protocol {
            4 => drop(pickle.text(module).text(name).put(&[0x93])),
            _ => drop(pickle.put(format!("c{module}\n{name}\n").as_bytes())),
        })
    }

    pub fn ordered_dict(&mut self) -> &mut Self {
        self.import("collections", "OrderedDict").put(b")R").keep("dict")
    }

    pub fn tensor(&mut self, tensor: &Tensor) -> &mut Self {
        self.import("torch._utils", "_rebuild_tensor_v2").put(b"((").text("storage").import("torch", tensor.class);
        self.text(&tensor.key).text("cpu").int(tensor.numbers).put(b"t").keep("storage").put(b"Q");
        self.int(tensor.offset).ints(&tensor.shape).ints(&tensor.strides).put(&[0x89]).ordered_dict().put(b"t").keep("arguments");
        self.put(b"R").keep("tensor")
    }

    /// The key and the value, and more with the same mark.
    pub fn items<'a>(&mut self, tensors: impl IntoIterator<Item = &'a Tensor>) -> &mut Self {
        tensors.into_iter().fold(self.put(b"("), |pickle, tensor| pickle.text(&tensor.name).tensor(tensor)).put(b"u")
    }

    /// `{"": {"version": 1}}` as the attribute `_metadata` of the dict before.
    pub fn metadata(&mut self) -> &mut Self {
        self.put(b"}").keep("attributes").text("_metadata").ordered_dict().text("").put(b"}").keep("module");
        self.text("version").int(1).put(b"sssb")
    }

    pub fn stop(&mut self) -> Vec<u8> {
        self.put(b".").bytes.clone()
    }
}

/// What a pickle says of a tensor.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// As `FloatStorage`.
    pub class: &'static str,
    pub key: String,
    /// Numbers in the storage.
    pub numbers: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl Tensor {
    /// One that has its storage to itself, row by row.
    pub fn new(name: &str, class: &'static str, key: &str, shape: &[usize]) -> Self {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let strides = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        Self { name: name.to_owned(), class, key: key.to_owned(), numbers: shape.iter().product(), offset: 0, shape, strides }
    }
}

/// The directory of a zip archive.
pub struct Directory {
    pub entries: Vec<DirectoryEntry>,
    /// Where it is and how many entries it has.
    pub offset: u64,
    pub count: u64,
    /// Sizes and places of 8 bytes, as where they are larger than 4 bytes can say.
    pub zip64: bool,
}

/// What it says of a record.
#[derive(Clone)]
pub struct DirectoryEntry {
    pub name: String,
    pub flags: u16,
    pub method: u16,
    pub checksum: u32,
    pub stored: u64,
    pub size: u64,
    pub offset: u64,
}

/// A local header, without the name that follows it.
pub fn local_header(name: &str, padding: usize) -> Vec<u8> {
    let mut header = b"PK\x03\x04\0\0\x08\x08".to_vec();
    header.extend([0; 18]); // The sizes come after the data.
    header.extend((name.len() as u16).to_le_bytes());
    header.extend((padding as u16).to_le_bytes());
    header
}

/// The checksum of zip, bit by bit.
fn crc32(data: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

/// A zip archive of stored records, laid out as torch does it: data at multiples of 64 bytes, sizes behind the data and in the directory.
pub fn zip(records: &[(String, Vec<u8>)], change: impl FnOnce(&mut Directory)) -> Vec<u8> {
    let (mut bytes, mut entries) = (Vec::new(), Vec::new());
    for (name, data) in records {
        let (offset, size) = (bytes.len() as u64, data.len() as u64);
        let data_start = (bytes.len() + 30 + name.len() + 4).next_multiple_of(64);
        let padding = data_start - bytes.len() - 30 - name.len();
        bytes.extend(local_header(name, padding));
        bytes.extend(name.as_bytes());
        bytes.extend(*b"FB");
        bytes.extend((padding as u16 - 4).to_le_bytes());
        bytes.resize(data_start, b'Z');
        bytes.extend(data);
        bytes.extend(*b"PK\x07\x08");
        bytes.extend([crc32(data), size as u32, size as u32].map(u32::to_le_bytes).as_flattened());
        entries.push(DirectoryEntry { name: name.clone(), flags: 0x808, method: 0, checksum: crc32(data), stored: size, size, offset });
    }
    let mut directory = Directory { offset: bytes.len() as u64, count: entries.len() as u64, entries, zip64: false };
    change(&mut directory);

    let start = bytes.len();
    let clamp = |value: u64| value.min(0xffff_ffff) as u32;
    for entry in &directory.entries {
        let long = [entry.size, entry.stored, entry.offset];
        let [size, stored, offset] = if directory.zip64 { [u32::MAX; 3] } else { long.map(clamp) };
        let extra = if directory.zip64 { [&[1, 0, 24, 0], long.map(u64::to_le_bytes).as_flattened()].concat() } else { Vec::new() };
        bytes.extend(*b"PK\x01\x02\0\0\0\0");
        bytes.extend([entry.flags, entry.method, 0, 0].map(u16::to_le_bytes).as_flattened());
        bytes.extend([entry.checksum, stored, size].map(u32::to_le_bytes).as_flattened());
        bytes.extend([entry.name.len() as u16, extra.len() as u16, 0, 0, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(entry.name.as_bytes());
        bytes.extend(extra);
    }
    let (length, end) = ((bytes.len() - start) as u64, bytes.len() as u64);
    let Directory { offset, count, .. } = directory;
    bytes.extend(*b"PK\x06\x06");
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend([count, count, length, offset].map(u64::to_le_bytes).as_flattened());
    bytes.extend(*b"PK\x06\x07\0\0\0\0");
    bytes.extend(end.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(*b"PK\x05\x06\0\0\0\0");
    bytes.extend([count.min(0xffff) as u16; 2].map(u16::to_le_bytes).as_flattened());
    bytes.extend([clamp(length), clamp(offset)].map(u32::to_le_bytes).as_flattened());
    bytes.extend([0; 2]);
    bytes
}

/// The records of a file: the pickle, and the storages `0`, `1` and so on.
pub fn records(pickle: Vec<u8>, storages: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let mut records = vec![("archive/data.pkl".to_owned(), pickle), ("archive/byteorder".to_owned(), b"little".to_vec())];
    records.extend(storages.iter().enumerate().map(|(i, data)| (format!("archive/data/{i}"), data.clone())));
    records.push(("archive/version".to_owned(), b"3\n".to_vec()));
    records
}
