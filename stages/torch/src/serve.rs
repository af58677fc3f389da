//! Takes tasks from standard input and answers on standard output.

use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use nnflow_net::device::{Device, DeviceChoice};
use nnflow_net::precision::Precision;
use nnflow_net::shim;
use nnflow_nnunet::train::settings::PrecisionChoice;
use nnflow_stage::{
    Context, ErrorKind, ErrorReport, Host, Outcome, Reply, Request, StageError, StageEvent, Task, WORKER_PROTOCOL,
};

use crate::predict::Networks;
use crate::ranks::train_together;
use crate::train::torch;

/// Bytes.
pub(crate) const GIBIBYTE: f64 = 1024.0 * 1024.0 * 1024.0;

/// Serves until standard input ends.
pub(crate) fn serve() -> ExitCode {
    reply(&Reply::Ready {
        protocol: WORKER_PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device_in_words(),
    });
    let cancelled = Arc::new(AtomicBool::new(false));
    let tasks = listen(cancelled.clone());
    let mut networks = Networks::default();
    for task in tasks {
        cancelled.store(false, Ordering::Relaxed);
        let host = Pipe { cancelled: &cancelled };
        let answer = match guarded(|| run(&task, &host, &mut networks)) {
            Ok(outcome) => Reply::Done { outcome },
            Err(report) => {
                if report.kind == ErrorKind::Internal {
                    // The state of the networks is unknown after a panic; the next task loads its own.
                    networks = Networks::default();
                }
                Reply::Failed { report }
            }
        };
        reply(&answer);
    }
    ExitCode::SUCCESS
}

/// Runs work whose panic is an error like others.
pub(crate) fn guarded(work: impl FnOnce() -> Result<Outcome, ErrorReport>) -> Result<Outcome, ErrorReport> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(ErrorReport::new(ErrorKind::Internal, "the stage panicked; its log says where")))
}

/// The device that `auto` stands for.
pub(crate) fn device_in_words() -> String {
    match DeviceChoice::Auto.resolve(1) {
        Ok(Device::Cuda(index)) => format!("CUDA GPU {index}"),
        Ok(Device::Cpu { .. }) | Err(_) => "CPU".to_owned(),
    }
}

/// Writes a line to standard output; a reader that is gone needs none.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or(());
}

/// Reads requests in a thread of its own, so that a cancellation is heard while a task runs.
///
/// When standard input ends, whoever started this worker is gone: nobody will take the result, and a training goes on
/// from its last checkpoint, so the process ends at once.
fn listen(cancelled: Arc<AtomicBool>) -> Receiver<Box<Task>> {
    let (sender, tasks) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line) {
                Ok(Request::Run { task }) => {
                    if sender.send(task).is_err() {
                        break;
                    }
                }
                Ok(Request::Cancel) => cancelled.store(true, Ordering::Relaxed),
                Err(error) => eprintln!("a request cannot be read: {error}"),
            }
        }
        std::process::exit(0);
    });
    tasks
}

fn run(task: &Task, host: &dyn Host, networks: &mut Networks) -> Result<Outcome, ErrorReport> {
    let mut context = Context::new(task, host);
    let ran = match task.stage.as_str() {
        "train" => {
            let (device, ranks) = crate::train::processes(&context).map_err(|error| error.report())?;
            if ranks > 1 {
                // Networks of an earlier task take memory that the processes need.
                *networks = Networks::default();
                return train_together(task, host, device, ranks);
            }
            crate::train::train(&mut context, None)
        }
        "predict" => crate::predict::predict(&mut context, networks),
        other => Err(StageError::internal(format!("this worker does not run the stage `{other}`"))),
    };
    ran.map(|()| context.into_outcome()).map_err(|error| error.report())
}

/// The device of a task.
pub(crate) fn device(context: &Context<'_>) -> Result<Device, StageError> {
    let resources = context.resources();
    let choice: Result<DeviceChoice, _> = resources.device.parse();
    choice
        .and_then(|choice| choice.resolve(resources.threads))
        .map_err(|error| StageError::input(error.to_string()).with_hint(error.hint()))
}

/// Tells what tensors have taken of a GPU's memory since the last reset, for the record of the task.
pub(crate) fn note_gpu_memory(context: &mut Context<'_>, device: Device) -> Result<(), StageError> {
    if let Some(memory) = shim::memory(device).map_err(torch)? {
        context.took_gpu_memory(memory.peak);
    }
    Ok(())
}

/// What a network computes in; `on_gpu` is what suits a GPU.
pub(crate) fn precision(choice: PrecisionChoice, device: Device, on_gpu: Precision) -> Precision {
    match (choice, device) {
        (PrecisionChoice::Auto, Device::Cuda(_)) => on_gpu,
        (PrecisionChoice::Auto, Device::Cpu { .. }) | (PrecisionChoice::Float32, _) => Precision::Float32,
        (PrecisionChoice::Bfloat16, _) => Precision::Bfloat16,
        (PrecisionChoice::Float16, _) => Precision::Float16,
    }
}

struct Pipe<'a> {
    cancelled: &'a AtomicBool,
}

impl Host for Pipe<'_> {
    fn event(&self, event: StageEvent) {
        reply(&Reply::Event { event });
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

fn reply(reply: &Reply) {
    match serde_json::to_string(reply) {
        Ok(line) => say(&line),
        Err(error) => eprintln!("a reply cannot be written: {error}"),
    }
}
