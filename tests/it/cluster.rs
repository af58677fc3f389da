//! A cluster of one node that tests start and end: Slurm's own daemons, with pretended processors and GPUs.
//!
//! It needs no accounting, no control groups and nothing of the machine's own configuration; all that it writes lies in a
//! temporary folder. The daemons of Debian's packages `slurm-wlm` and `munge` are used, and have to be started by root.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is started.
const DAEMONS: [&str; 3] = ["munged", "slurmctld", "slurmd"];

/// A cluster that ends when it is dropped.
pub(crate) struct Cluster {
    folder: TempDir,
    daemons: Mutex<Vec<Daemon>>,
}

struct Daemon {
    name: &'static str,
    process: Child,
}

impl Cluster {
    /// A cluster; nothing where this machine cannot have one, which is said.
    pub(crate) fn start() -> Option<Self> {
        if let Err(why) = can_start() {
            eprintln!("skipped: {why}");
            return None;
        }
        let cluster =
            Self { folder: TempDir::new().expect("a temporary folder can be made"), daemons: Mutex::default() };
        cluster.configure();
        cluster.begin("munged", &["--force", "--foreground", "--num-threads=2"].map(str::to_owned));
        let socket = format!("--socket={}", cluster.path("munge.socket").display());
        wait_until("munged", || succeeds(Command::new("munge").args(["--no-input", &socket])));
        cluster.start_controller();
        cluster.begin("slurmd", &["-D".to_owned()]);
        wait_until("slurmd", || cluster.slurm("sinfo", &["-h", "-o", "%T"]).contains("idle"));
        Some(cluster)
    }

    /// The value of `SLURM_CONF` that leads Slurm's programs to this cluster.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.path("slurm.conf")
    }

    /// What one of Slurm's programs prints, whether or not it succeeds.
    pub(crate) fn slurm(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).env("SLURM_CONF", self.configuration()).output();
        let output = output.expect("Slurm's programs are installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The array that each of all jobs so far belongs to, in order and each one once.
    pub(crate) fn arrays(&self) -> Vec<String> {
        let mut arrays: Vec<String> =
            self.slurm("squeue", &["-h", "-t", "all", "-o", "%F"]).lines().map(|line| line.trim().to_owned()).collect();
        arrays.sort();
        arrays.dedup();
        arrays
    }

    /// The states of all jobs so far, each one once.
    pub(crate) fn states(&self) -> Vec<String> {
        let mut states: Vec<String> =
            self.slurm("squeue", &["-h", "-r", "-t", "all", "-o", "%T"]).lines().map(str::to_owned).collect();
        states.sort();
        states.dedup();
        states
    }

    /// Waits until all jobs so far have ended, however that be.
    pub(crate) fn wait_for_all(&self) {
        let after = format!("--dependency=afterany:{}", self.arrays().join(":"));
        let output = format!("--output={}", self.path("wait.log").display());
        self.slurm("sbatch", &["--wait", "--mem=10M", &after, &output, "--wrap=true"]);
    }

    /// Kills the controller as a power failure would.
    pub(crate) fn kill_controller(&self) {
        let mut daemons = self.daemons.lock().expect("no test panics while it holds this");
        for daemon in daemons.iter_mut().filter(|daemon| daemon.name == "slurmctld") {
            daemon.end();
        }
        daemons.retain(|daemon| daemon.name != "slurmctld");
    }

    /// Starts the controller, with what an earlier one has written down.
    pub(crate) fn start_controller(&self) {
        self.begin("slurmctld", &["-D".to_owned()]);
        wait_until("slurmctld", || self.slurm("scontrol", &["ping"]).contains("is UP"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn begin(&self, name: &'static str, arguments: &[String]) {
        let log = fs_err::File::create(self.path(&format!("{name}.out"))).expect("a log can be made").into_parts().0;
        let mut command = Command::new(name);
        command.args(arguments).env("SLURM_CONF", self.configuration()).stdin(Stdio::null());
        if name == "munged" {
            for (option, file) in [("socket", "munge.socket"), ("key-file", "munge.key"), ("pid-file", "munged.pid")] {
                command.arg(format!("--{option}={}", self.path(file).display()));
            }
            command.arg(format!("--seed-file={}", self.path("munge.seed").display()));
            command.arg(format!("--log-file={}", self.path("munged.log").display()));
        }
        command.stdout(log.try_clone().expect("a log can be shared")).stderr(log);
        let process = command.spawn().expect("a daemon can be started");
        self.daemons.lock().expect("no test panics while it holds this").push(Daemon { name, process });
    }

    fn configure(&self) {
        let write = |name: &str, text: String| fs_err::write(self.path(name), text).expect("a file can be written");
        let host = host();
        let folder = self.folder.path().display();
        readable(self.folder.path(), 0o755);
        for name in ["state", "spool"] {
            fs_err::create_dir(self.path(name)).expect("a folder can be made");
        }
        write("munge.key", "nothing in this cluster is worth a secret, as long as it is long enough".repeat(20));
        readable(&self.path("munge.key"), 0o600);
        // GPUs have to be character devices: these are numbers 3 and 5 of the memory devices, null and zero.
        for (number, minor) in [(0, "3"), (1, "5")] {
            let device = self.path(&format!("gpu{number}"));
            assert!(succeeds(Command::new("mknod").arg(device).args(["c", "1", minor])), "mknod");
        }
        write("gres.conf", format!("NodeName={host} Name=gpu File={folder}/gpu[0-1]\n"));
        let (controller, node) = free_ports();
        write("slurm.conf", format!("{}{}", fixed(), self.own(&host, controller, node)));
    }

    fn own(&self, host: &str, controller: u16, node: u16) -> String {
        let folder = self.folder.path().display();
        format!(
            "SlurmctldHost={host}(127.0.0.1)\nAuthInfo=socket={folder}/munge.socket\n\
             SlurmctldPort={controller}\nSlurmdPort={node}\n\
             SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n\
             SlurmdSpoolDir={folder}/spool\nStateSaveLocation={folder}/state\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 \
             RealMemory=16000 Gres=gpu:2 State=UNKNOWN\n\
             PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE DefaultTime=10 DefMemPerCPU=200 State=UP\n"
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Jobs outlive their node's daemon, so they go first.
        self.slurm("scancel", &["--full", "--signal=KILL", "--user=root"]);
        let daemons = self.daemons.get_mut().expect("no test panics while it holds this");
        daemons.iter_mut().rev().for_each(Daemon::end);
    }
}

impl Daemon {
    fn end(&mut self) {
        self.process.kill().expect("a daemon can be killed");
        self.process.wait().expect("a daemon can be waited for");
    }
}

fn fixed() -> &'static str {
    "ClusterName=test\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nCredType=cred/munge\nMpiDefault=none\n\
     ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSlurmdParameters=config_overrides\n\
     JobAcctGatherType=jobacct_gather/linux\nSwitchType=switch/none\nReturnToService=2\nSchedulerType=sched/backfill\n\
     SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0\nSelectType=select/cons_tres\n\
     SelectTypeParameters=CR_Core_Memory\nAccountingStorageType=accounting_storage/none\nKillWait=5\nMinJobAge=300\n\
     GresTypes=gpu\n"
}

/// Whether this machine can have a cluster, or why it cannot.
fn can_start() -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if let Some(missing) = DAEMONS.iter().find(|name| !is_there(name)) {
        return Err(format!("there is no `{missing}`; Debian has it in the packages slurm-wlm and munge"));
    }
    match fs_err::metadata("/proc/self").map(|own| own.uid()) {
        Ok(0) => Ok(()),
        _ => Err("only root can start Slurm's daemons".to_owned()),
    }
}

fn host() -> String {
    let name = fs_err::read_to_string("/proc/sys/kernel/hostname").expect("the machine has a name");
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

fn readable(path: &Path, mode: u32) {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs_err::set_permissions(path, permissions).expect("permissions can be set");
}

/// Ports that nobody uses now; both are held until both are known.
fn free_ports() -> (u16, u16) {
    let held = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").expect("there is a free port"));
    let [first, second] = held.each_ref().map(|listener| listener.local_addr().expect("it is bound").port());
    (first, second)
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Asks again until the answer is yes; each question is a process of its own, which takes its time.
fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "`{what}` does not answer");
    }
}
