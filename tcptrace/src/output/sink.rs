//! Where lines go. A reader that has gone away (`tcptrace | head`) is a normal end, not an error.

use std::io::{self, Write};
use std::ops::ControlFlow;

/// Whether anybody still reads: `Break` once the reader is gone.
pub type Written = io::Result<ControlFlow<()>>;

/// Writes whole lines.
#[derive(Debug)]
pub struct LineSink<W: Write> {
    to: W,
    gone: bool,
}

impl<W: Write> LineSink<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self { to, gone: false }
    }

    /// Writes `text`, which ends with its own line end. It is read at the latest after the next [`Self::flush`].
    ///
    /// # Errors
    /// What the writer says, but for a closed pipe.
    pub fn write(&mut self, text: &[u8]) -> Written {
        self.attempt(|to| to.write_all(text))
    }

    /// Passes on what was written: who reads along must not wait.
    ///
    /// # Errors
    /// What the writer says, but for a closed pipe.
    pub fn flush(&mut self) -> Written {
        self.attempt(W::flush)
    }

    fn attempt(&mut self, act: impl FnOnce(&mut W) -> io::Result<()>) -> Written {
        if self.gone {
            return Ok(ControlFlow::Break(()));
        }
        match act(&mut self.to) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(ControlFlow::Break(()))
            }
            Err(error) => Err(error),
        }
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_an_end_and_other_errors_are_errors() {
        let mut sink = LineSink::new(Failing(io::ErrorKind::BrokenPipe));
        assert_eq!(sink.write(b"a\n").unwrap(), ControlFlow::Break(()));
        assert_eq!(sink.write(b"b\n").unwrap(), ControlFlow::Break(()));
        let mut sink = LineSink::new(Failing(io::ErrorKind::StorageFull));
        assert_eq!(sink.write(b"a\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut sink = LineSink::new(Vec::new());
        assert_eq!(sink.write(b"a\n").unwrap(), ControlFlow::Continue(()));
        assert_eq!(sink.into_inner(), b"a\n");
    }
}
