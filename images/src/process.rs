//! Running the programs that builders stand on: found or named with their package, output watched
//! line by line, the last lines kept for the error.

use crate::{ImagesError, at};
use std::{
    collections::VecDeque,
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// Lines of output that an error shows.
const TAIL_LINES: usize = 12;

/// Checks that a program can be started, before an hour of work ends without it.
pub(crate) fn require(program: &str, package: &'static str) -> Result<(), ImagesError> {
    if exists(program) {
        return Ok(());
    }
    Err(ImagesError::MissingProgram { program: program.to_owned(), package })
}

/// Whether a program is on the search path.
pub(crate) fn exists(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a command to its end and calls `on_line` with each line of its output and errors.
pub(crate) fn run(what: &str, command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<(), ImagesError> {
    let program = command.get_program().to_owned();
    let (reader, writer) = std::io::pipe().map_err(at(&program))?;
    let second = writer.try_clone().map_err(at(&program))?;
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(second).spawn().map_err(at(&program))?;
    // The command holds the writing ends: dropping them here lets the reading end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut tail = VecDeque::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.map_err(at(&program))?;
        let line = String::from_utf8_lossy(&line);
        on_line(&line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line.into_owned());
    }
    let status = child.wait().map_err(at(&program))?;
    if status.success() {
        return Ok(());
    }
    Err(ImagesError::Command { what: what.to_owned(), status: status.to_string(), tail: Vec::from(tail).join("\n") })
}

/// Runs a command and returns what it wrote to its standard output.
pub(crate) fn output(what: &str, command: &mut Command) -> Result<Vec<u8>, ImagesError> {
    let output = command.stdin(Stdio::null()).output().map_err(at(Path::new(command.get_program())))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(ImagesError::Command {
        what: what.to_owned(),
        status: output.status.to_string(),
        tail: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines_and_the_status() {
        let mut seen = 0;
        let mut command = Command::new("sh");
        command.args(["-c", "for i in $(seq 20); do echo line $i; done; exit 3"]);
        let error = run("counting", &mut command, |_| seen += 1).expect_err("it exits with 3");
        assert_eq!(seen, 20);
        let text = error.to_string();
        assert!(text.contains("counting failed (exit status: 3)"), "{text}");
        assert!(text.contains("line 20") && !text.contains("line 8\n"), "{text}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = require("no-such-program-here", "some-package").expect_err("it is not there");
        assert_eq!(error.to_string(), "`no-such-program-here` is not installed: apt-get install some-package");
    }
}
