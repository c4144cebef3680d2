//! Processes of their own: for what a whole process shares (descriptors, threads), for what must be killed, and for
//! the examples.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Set in a process that [`alone`] started: the test whose body it is to run.
const ALONE: &str = "ESKER_TEST_ALONE";

/// This test binary, asked for one test.
pub fn this_test(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("path of the test binary"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
}

/// Runs the body of this test in a process of its own, where no other test has anything open.
pub fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var(ALONE).as_deref() == Ok(test) {
        return body();
    }
    let output = this_test(test).env(ALONE, test).output().expect("start a process");
    let text = text_of(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{test} alone: {}\n{text}", output.status);
}

/// What a process wrote, to wherever.
pub fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The program of an example, built by cargo if need be, in the profile of this test binary.
pub fn example(name: &str) -> Command {
    static EXAMPLES: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let examples = EXAMPLES.get_or_init(build_examples);
    Command::new(examples.get(name).unwrap_or_else(|| panic!("no example {name} among {examples:?}")))
}

fn build_examples() -> BTreeMap<String, PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["build", "--package", "esker", "--examples", "--message-format=json"]);
    if let Some(profile) = profile() {
        command.args(["--profile", &profile]);
    }
    let output = command.output().expect("start cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let executables = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        let path = PathBuf::from(rest.split_once('"')?.0);
        Some((path.file_stem()?.to_str()?.to_string(), path))
    });
    executables.collect()
}

/// The profile in which this binary was built, from its place in the target directory; `None` for the default one.
fn profile() -> Option<String> {
    let exe = std::env::current_exe().expect("path of the test binary");
    let profile = exe.parent()?.parent()?.file_name()?.to_str()?;
    (profile != "debug").then(|| profile.to_string())
}
