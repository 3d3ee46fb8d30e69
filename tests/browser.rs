//! Every shader in a browser: compiled by another implementation of WGSL than wgpu's, and run on small inputs whose results are known.
//! `tests/platforms/webgpu_chromium.sh` runs it.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::compare::{Bound, Table};
use common::fixture;
use minilm::gpu::check::Check;
use minilm::gpu::{Form, Source};
use minilm::kernels::all_sources;
use minilm::{Checkpoint, Gpu, doctor, wgpu};
use serde::Deserialize;
use serde_json::{Value, json};

const PAGE: &str = include_str!("platforms/webgpu.html");

/// Longest time that one shader may take, and the start of the browser.
const PATIENCE: Duration = Duration::from_secs(300);

/// Values behind the output that nobody may touch, and what the output holds before.
const CANARIES: usize = 16;
const POISON: u32 = 0x7fc0_1234;

/// What the page says of the browser, and of each shader.
#[derive(Deserialize)]
struct Browser {
    about: String,
    features: Vec<String>,
    subgroup: [u32; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Words(Vec<u32>),
    Error(String),
}

impl Browser {
    fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|offered| offered == feature)
    }

    /// The WGSL as a browser wants it, or nothing where it needs what this one has not. What wgpu knows without being told, WGSL has
    /// behind an `enable`.
    fn wgsl(&self, source: &Source) -> Option<String> {
        let enabled = source.wgsl.lines().filter_map(|line| line.strip_prefix("enable ")?.strip_suffix(';'));
        let offered = enabled.into_iter().all(|extension| extension == "f16" && self.has("shader-f16"));
        match source.wgsl.contains("subgroup") {
            true => (offered && self.has("subgroups")).then(|| format!("enable subgroups;\n{}", source.wgsl)),
            false => offered.then(|| source.wgsl.clone()),
        }
    }

    /// Its subgroups' size, where all have the same.
    fn subgroup(&self) -> Option<u32> {
        let [least, most] = self.subgroup;
        (self.has("subgroups") && least == most && (4..=64).contains(&most)).then_some(most)
    }
}

/// A shader that is compiled, and run where there is a check.
struct Case {
    name: String,
    source: Source,
    run: Option<(Form, Box<dyn Fn() -> Check>)>,
}

/// Every form of every shader, to be compiled; and those of this browser at the shapes of some small models, to be run.
fn cases(browser: &Browser) -> Vec<Case> {
    let compiled = all_sources().into_iter().map(|source| {
        let name = format!("{} {:?}", source.kernel, source.constants);
        Case { name, source, run: None }
    });
    let (gpu, mut cases) = (noop(), compiled.collect::<Vec<_>>());
    // Heads of 8 with a bias by distance, of 16 with widths that are no multiples of a tile, and of 64.
    for folder in ["families/mpnet-base", "tiny-minilm-bert-odd-h80", "tiny-bert-base-l4-h64-sharded"] {
        let config = Checkpoint::open(fixture(folder)).unwrap().config;
        for (kernel, shape, form, check) in doctor::candidates(&gpu, browser.subgroup(), &config) {
            let form = form.unwrap();
            let name = format!("{kernel} {shape} {}", form.variant);
            cases.push(Case { name, source: form.pipeline.source().clone(), run: Some((form, check)) });
        }
    }
    cases
}

/// A device that runs nothing: pipelines ask for one.
fn noop() -> Gpu {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop =
        wgpu::NoopBackendOptions { enable: true, limits: Some(wgpu::Limits::default()), ..Default::default() };
    let adapter = pollster::block_on(wgpu::Instance::new(descriptor).request_adapter(&Default::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    Gpu::from_device(device, queue)
}

/// What the page needs to run a case.
fn work(wgsl: &str, source: &Source, run: Option<(&Form, &Check)>) -> Value {
    let module = naga::front::wgsl::parse_str(&source.wgsl).unwrap();
    let bindings = module.global_variables.iter().filter_map(|(_, variable)| {
        let name = variable.name.as_deref()?;
        let kind = match variable.space {
            naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => "storage",
            naga::AddressSpace::Storage { .. } => "read-only-storage",
            _ => "uniform",
        };
        let is_output = run.is_some_and(|(_, check)| check.output == name);
        let words = run.map(|(_, check)| match check.inputs.iter().find(|(input, _)| *input == name) {
            Some((_, words)) => words.clone(),
            None if is_output => vec![POISON; check.written + CANARIES],
            None => vec![0; 16],
        });
        Some(json!({ "binding": variable.binding?.binding, "type": kind, "words": words, "is_output": is_output }))
    });
    let constants: serde_json::Map<String, Value> =
        source.constants.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
    let workgroups = run.map(|(Form { grid, .. }, Check { batch, .. })| [grid.x.of(batch), grid.y.of(batch).div_ceil(grid.rows)]);
    json!({ "wgsl": wgsl, "constants": constants, "bindings": bindings.collect::<Vec<_>>(), "workgroups": workgroups })
}

fn compare(table: &mut Table, name: &str, words: &[u32], check: &Check) {
    let Some((written, canaries)) = words.split_at_checked(check.written) else {
        return table.fail(name, format!("{} values came back, expected {}", words.len(), check.written));
    };
    table.check(name, canaries == [POISON; CANARIES], "something was written beyond the end of the output");
    let (places, expected): (Vec<usize>, Vec<f64>) = check.expected.iter().copied().unzip();
    let found: Vec<f32> = places.iter().map(|place| f32::from_bits(written[*place])).collect();
    table.close(name, &found, &expected, Bound::new(check.bound.0, check.bound.1));
}

/// One request: whether it is for the page, its body, and where the answer goes.
struct Request {
    is_page: bool,
    body: Vec<u8>,
    stream: TcpStream,
}

impl Request {
    fn read(mut stream: TcpStream) -> Option<Self> {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 1 << 16]);
        loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
                if bytes.len() >= end + 4 + length {
                    return Some(Self { is_page: head.starts_with("get / "), body: bytes.split_off(end + 4), stream });
                }
                bytes.reserve(length);
            }
            match stream.read(&mut buffer).ok()? {
                0 => return None,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn answer(mut self, kind: &str, body: &str) {
        let length = body.len();
        // A browser that is gone is noticed by its silence.
        _ = write!(self.stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    }
}

/// The browser on the page, headless; it ends with this.
struct Page {
    requests: Receiver<Request>,
    browser: Child,
    _profile: tempfile::TempDir,
}

impl Page {
    fn open(program: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, profile) = (listener.local_addr().unwrap(), tempfile::tempdir().unwrap());
        let (sender, requests) = channel();
        // A thread for each connection: a browser also opens some that it does not use.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                std::thread::spawn(move || Request::read(stream).map(|request| sender.send(request)));
            }
        });
        let browser = Command::new(program)
            .args(["--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--enable-unsafe-webgpu"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{address}/"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Self { requests, browser, _profile: profile }
    }

    /// What the page posts next.
    fn next(&self, waiting_for: &str) -> Request {
        loop {
            let request = self.requests.recv_timeout(PATIENCE);
            let request = request.unwrap_or_else(|_| panic!("nothing came from the browser for {PATIENCE:?}: {waiting_for}"));
            match request.is_page {
                true => request.answer("text/html", PAGE),
                false if request.body.is_empty() => request.answer("text/plain", ""), // its icon
                false => return request,
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        _ = self.browser.kill();
        _ = self.browser.wait();
    }
}

#[test]
fn every_shader_compiles_and_computes_in_a_browser() {
    let Ok(program) = std::env::var("MINILM_BROWSER") else {
        return eprintln!("MINILM_BROWSER is not set: no shader is tried in a browser");
    };
    let page = Page::open(&program);
    let mut request = page.next("its start");
    let browser: Browser = serde_json::from_slice(&request.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&request.body)));
    println!("{}, {:?}, subgroups of {:?}", browser.about, browser.features, browser.subgroup);
    let mut table = Table::new("shaders in a browser");
    let (mut compiled, mut computed, mut left_out) = (0, 0, 0);
    for Case { name, source, run } in cases(&browser) {
        let Some(wgsl) = browser.wgsl(&source) else {
            left_out += 1;
            continue;
        };
        let run = run.map(|(form, check)| (form, check()));
        request.answer("application/json", &work(&wgsl, &source, run.as_ref().map(|(form, check)| (form, check))).to_string());
        let begun = Instant::now();
        request = page.next(&name);
        println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
        match (serde_json::from_slice(&request.body).unwrap(), run) {
            (Outcome::Error(error), _) => {
                println!("{name}: {error}");
                table.fail(&name, error);
            }
            (Outcome::Words(_), None) => compiled += 1,
            (Outcome::Words(words), Some((_, check))) => {
                computed += 1;
                compare(&mut table, &name, &words, &check);
            }
        }
    }
    println!("{compiled} forms compiled, {computed} compiled and ran, {left_out} need what this browser has not");
    table.check("forms", compiled > 0 && computed > 0, "nothing was run");
    table.finish();
}
