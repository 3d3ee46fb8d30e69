//! Runs the project's own programs as a user does.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program `minilm` where cargo has put it, or by its name on a machine that has only the binaries.
pub fn minilm() -> Command {
    let built = option_env!("CARGO_BIN_EXE_minilm").map(Path::new).filter(|path| path.exists());
    Command::new(built.unwrap_or(Path::new("minilm")))
}

/// The same with the model of `folder`, and only what the test itself says in the environment.
pub fn minilm_of(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = minilm();
    command.args(arguments).env("MINILM_MODEL", folder).env_remove("RUST_LOG");
    command
}

/// What `--format f32` writes.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Starts with all three streams piped.
pub fn spawn(command: &mut Command) -> Child {
    let program = command.get_program().to_owned();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap_or_else(|error| panic!("{program:?} cannot be started: {error}"))
}

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Each line of standard output as JSON.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Fails the test unless all went well.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// What the program said beside warnings; drivers and loaders write to the same stream, in their own words.
    pub fn messages(&self) -> Vec<&str> {
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr.lines().filter(|line| line.starts_with("minilm: ") && !line.starts_with("minilm: warning: ")).collect()
    }

    /// The one message of a run that must have failed with exit status 1.
    pub fn refused(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        match self.messages()[..] {
            [message] => message,
            _ => panic!("not one message: {}", self.stderr),
        }
    }
}

/// Runs to the end with `input` on standard input.
pub fn run(command: &mut Command, input: impl AsRef<[u8]> + Send) -> Run {
    let mut child = spawn(command);
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The program may end before it has read everything.
        scope.spawn(move || _ = stdin.write_all(input.as_ref()));
        finish(child)
    })
}

pub fn finish(child: Child) -> Run {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Run { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}
