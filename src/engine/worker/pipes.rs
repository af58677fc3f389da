//! The pipes of a worker, each with a thread of its own, so that nobody waits for one that is not read or not written.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// No reply is as long as this. What is longer is no reply, and must not fill the memory.
const LONGEST_LINE: u64 = 64 << 20;

/// How many lines are kept until they are looked at. A worker that says more has to wait.
const MOST_UNREAD: usize = 1024;

/// How much of a line is shown that is no reply.
const SHOWN: usize = 200;

/// Reads lines in a thread of its own, until the stream ends or a line is longer than any may be.
pub(super) fn read<T: Send + 'static>(
    stream: impl Read + Send + 'static,
    parse: impl Fn(std::io::Result<Vec<u8>>) -> T + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = bounded(MOST_UNREAD);
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        while let Some(line) = next_line(&mut stream, LONGEST_LINE).transpose() {
            let is_last = line.is_err();
            // Nobody listens any more once the worker has been given up.
            if sender.send(parse(line)).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end; `None` at the end of the stream.
fn next_line(stream: &mut impl BufRead, longest: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    stream.take(longest).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 + 1 == longest => {
            Err(std::io::Error::other(format!("a line of more than {longest} bytes that begins {}", shown(&line))))
        }
        Some(last) => {
            line.push(last);
            Ok(Some(line))
        }
    }
}

/// The beginning of a line, for somebody who reads it.
pub(super) fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.get(..SHOWN).unwrap_or(line));
    let more = if line.len() > SHOWN { " …" } else { "" };
    format!("`{}`{more}", text.escape_debug())
}

/// Writes what is sent in a thread of its own, until nobody sends or nobody reads any more.
pub(super) fn write(mut stream: impl Write + Send + 'static) -> Sender<Vec<u8>> {
    let (sender, lines) = unbounded::<Vec<u8>>();
    std::thread::spawn(move || {
        for line in lines {
            // Whoever sends next learns that nobody reads any more.
            if stream.write_all(&line).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    });
    sender
}

/// What comes until the stream ends, or for so long: somebody else may hold it open.
pub(super) fn rest(lines: &Receiver<String>, patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    std::iter::from_fn(|| lines.recv_deadline(deadline).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of a text where none may be longer than eight bytes with its end.
    fn lines(text: &str) -> std::io::Result<Vec<String>> {
        let mut stream = text.as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut stream, 8)? {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        Ok(lines)
    }

    #[test]
    fn lines_are_read_without_their_ends() {
        assert_eq!(lines("one\n\ntwo\nrest").expect("short lines"), ["one", "", "two", "rest"]);
    }

    #[test]
    fn the_longest_line_is_read() {
        assert_eq!(lines("1234567\n1\n").expect("a line of eight bytes"), ["1234567", "1"]);
    }

    #[test]
    fn a_longer_line_is_refused() {
        let message = lines("12345678\n").expect_err("nine bytes").to_string();
        assert_eq!(message, "a line of more than 8 bytes that begins `1234567`");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_far_as_they_can_be() {
        assert_eq!(shown(b"\x1b[31m\xff"), "`\\u{1b}[31m\u{fffd}`");
        assert_eq!(shown(&[b'x'; 201]), format!("`{}` …", "x".repeat(200)));
    }

    #[test]
    fn what_is_written_to_a_stream_that_nobody_reads_keeps_nobody() {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        let sender = write(writer);
        // More than a pipe holds.
        sender.send(vec![0; 1 << 20]).expect("the thread listens");
        sender.send(vec![0; 1]).expect("the thread listens");
        drop(reader);
        while sender.send(Vec::new()).is_ok() {
            std::thread::yield_now();
        }
    }
}
