//! A thread with a runtime of its own, for a part of the demo that must not be held
//! up by the others.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;

/// Resolves when the thread is told to end.
pub(super) type Told = oneshot::Receiver<()>;

/// A running thread; it is told to end, and waited for, when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread that runs `work` on a local runtime. What `work` has spawned is
    /// dropped with the runtime. The thread inherits the cores that the caller may use.
    pub(super) fn start<F: Future<Output = ()>>(
        name: &str,
        work: impl FnOnce(Told) -> F + Send + 'static,
    ) -> io::Result<Worker> {
        let (end, told) = oneshot::channel();
        let (started, outcome) = sync_channel(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut builder = Builder::new_current_thread();
            let runtime = match builder.enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _nobody_waits = started.send(Err(error));
                    return;
                }
            };
            let _nobody_waits = started.send(Ok(()));
            runtime.block_on(work(told));
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))?;
        Ok(Worker { end: Some(end), thread: Some(thread) })
    }

    /// Waits for the thread to end by itself.
    pub(super) fn join(mut self) {
        self.wait();
    }

    fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so itself.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.end.take());
        self.wait();
    }
}
