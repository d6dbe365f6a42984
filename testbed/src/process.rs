//! Processes: started so that they end with who started them, recorded so that no other is ever killed.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
    },
    unistd::{Pid, getppid},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Layout, Result, error::Doing as _, wait};

/// One process, told apart from a later one with the same number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pid: i32,
    /// Clock ticks after boot, as the kernel says.
    started: u64,
}

impl ProcessId {
    /// The running process of that number, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let (running, started) = stat(pid)?;
        running.then_some(Self { pid, started })
    }

    /// This process.
    pub fn me() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Its number.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs. A process that has ended but was not collected yet does not.
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|(running, started)| started == self.started && running)
    }

    /// Ends it at once and waits until it is gone. Harmless when it is gone already.
    pub fn end(self) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        // Between this look and the signal the number could be given to another process only if the kernel went
        // through all its numbers meanwhile.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        wait::until(
            "a killed process ends",
            Duration::from_secs(10),
            || format!("pid {} is still there", self.pid),
            || Ok((!self.alive()).then_some(())),
        )
    }
}

/// Whether it still runs, and when it started, from /proc: fields 3, 20 and 22, counted after the name, which may
/// hold anything. A first thread that has ended says nothing while others still hold the files.
fn stat(pid: i32) -> Option<(bool, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &text[text.rfind(')')? + 2..];
    let mut fields = after_name.split(' ');
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    Some((state != "Z" || threads > 1, fields.nth(1)?.parse().ok()?))
}

/// A command for a program that ends when this process does, also when this one is killed.
///
/// The work is done by the testbed program between fork and exec ([`tied`]), as only the child can ask for it.
pub(crate) fn tied_command(layout: &Layout, program: &Path) -> Result<Command> {
    let mut command = Command::new(layout.testbed_program()?);
    command.arg("tied").arg("--parent").arg(std::process::id().to_string()).arg("--").arg(program);
    command.stdin(Stdio::null());
    Ok(command)
}

/// Becomes `program` after asking the kernel to end this process when its parent ends.
pub fn tied(parent: i32, program: &str, arguments: &[String]) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "set the parent death signal".to_owned())?;
    if getppid().as_raw() != parent {
        return Ok(()); // the parent ended before the line above: so do we
    }
    become_program(Command::new(program).args(arguments))
}

/// Becomes the program: same process, same number, same start time.
pub(crate) fn become_program(command: &mut Command) -> Result<()> {
    // Go programs expect the default mask.
    SigSet::all().thread_unblock().doing(|| "unblock signals".to_owned())?;
    Err(command.exec()).doing(|| format!("run {command:?}"))
}

/// Starts the testbed program with `arguments` as a process of its own: no terminal, no parent that would have to
/// collect it, output to `log`.
pub(crate) fn start_detached(layout: &Layout, arguments: &[&str], log: &Path) -> Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
    }
    let out = fs::File::options().create(true).append(true).open(log).doing(|| format!("open {}", log.display()))?;
    let err = out.try_clone().doing(|| format!("open {}", log.display()))?;
    let mut command = Command::new("setsid");
    command.arg("--fork").arg(layout.testbed_program()?).args(arguments);
    command.env("SAATKOND_ROOT", layout.root()).current_dir("/");
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let status = command.status().doing(|| format!("run {command:?}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: format!("{command:?}"),
        status: status.to_string(),
        output: crate::layout::tail(log, 20),
    })
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    feed(command, None)
}

/// Runs a program with `input` as its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    feed(command, Some(input))
}

fn feed(command: &mut Command, input: Option<&str>) -> Result<String> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut child = command.spawn().doing(|| format!("run {what}"))?;
    let writer = input.map(str::to_owned).zip(child.stdin.take()).map(|(text, mut pipe)| {
        // A thread of its own: the program may print more than a pipe holds before it has read everything.
        std::thread::spawn(move || pipe.write_all(text.as_bytes()))
    });
    let output = child.wait_with_output().doing(|| format!("run {what}"))?;
    if let Some(writer) = writer {
        let _ = writer.join(); // a program that did not read to the end says so by its status
    }
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let printed = [output.stderr, output.stdout].concat();
    Err(Error::Command {
        command: what,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&printed).trim().to_owned(),
    })
}
