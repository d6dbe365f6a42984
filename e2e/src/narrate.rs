//! Telling a person what happens, with the time since the beginning.

use std::time::Instant;

/// Prints steps and facts with time stamps.
#[derive(Debug)]
pub struct Narrator {
    began: Instant,
    step: u32,
}

impl Default for Narrator {
    fn default() -> Self {
        Self { began: Instant::now(), step: 0 }
    }
}

impl Narrator {
    /// A new step.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n[{}] {}. {title}", self.stamp(), self.step);
    }

    /// A fact within the step.
    pub fn say(&self, text: &str) {
        println!("[{}]    {text}", self.stamp());
    }

    /// Text that stands for itself: a table, an answer, commands.
    pub fn show(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("            {line}");
        }
    }

    fn stamp(&self) -> String {
        format!("{:6.1} s", self.began.elapsed().as_secs_f64())
    }
}
