//! SIGINT and SIGTERM: the work stops at the next slab, or after a few seconds where it stands.
//!
//! Both ways leave the same things behind: outputs have their name only when they are whole, and a journal beside an
//! unfinished volume says which of its slices are. Stopping in the middle of a slab is therefore no different from a
//! kill, which a resumed run survives anyway; the orderly way only saves the slab that is nearly done.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::error::{Error, Result};

/// The signal that came; 0: none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// Time for a slab to come to its end.
#[cfg(unix)]
const GRACE: std::time::Duration = std::time::Duration::from_secs(4);

/// Whether a signal asked the program to stop.
#[must_use]
pub fn requested() -> bool {
    SIGNAL.load(Ordering::Relaxed) != 0
}

/// For loops over slabs and blocks: an error once a signal came.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check() -> Result<()> {
    if requested() {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// What the process returns when it was stopped: 128 plus the number of the signal, as shells expect.
#[must_use]
pub fn exit_code() -> u8 {
    u8::try_from(128 + SIGNAL.load(Ordering::Relaxed)).unwrap_or(1)
}

/// Starts to listen. Call once, in `main`; without it signals end the process at once, as the system has it.
///
/// # Errors
/// Those of the system, where it refuses handlers.
#[cfg(unix)]
pub fn listen() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if SIGNAL.swap(signal, Ordering::Relaxed) != 0 {
                    leave();
                }
                log::warn!("stopping; a second signal stops at once");
                std::thread::spawn(|| {
                    std::thread::sleep(GRACE);
                    leave();
                });
            }
        })?;
    Ok(())
}

/// Starts to listen; on this system signals end the process at once.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn listen() -> std::io::Result<()> {
    Ok(())
}

/// Ends the process where it stands, without destructors that could wait for a device or a disk.
#[cfg(unix)]
fn leave() -> ! {
    eprintln!("error: {}", Error::Interrupted);
    signal_hook::low_level::exit(i32::from(exit_code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_signal_no_stop() {
        assert!(!requested() && check().is_ok());
    }
}
