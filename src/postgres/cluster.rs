//! The files of the cluster, and how they are created.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tracing::{info, warn};

use super::binaries::Binaries;
use super::child::{Child, ended};
use super::dir::Dir;
use super::log::Log;
use super::owner::Owner;
use super::postmaster::{Lock, Postmaster};
use super::{Error, USER, config, trust};

/// The cluster at `<data_dir>/postgres`. It exists completely or not at all.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) data_dir: PathBuf,
    /// The data directory, which is kept open since it was checked.
    pub(super) data: Dir,
    pub(super) dir: PathBuf,
    pub(super) owner: Owner,
}

impl Cluster {
    /// Creates the data directory if it is missing. Only this user, root and the server's own user may be able to
    /// write in it or replace it.
    pub(super) fn at(data_dir: &Path) -> Result<Self, Error> {
        let owner = Owner::of(&data_dir.join("postgres"))?;
        let data_dir = trust::resolve(data_dir, owner.uid)?;
        make_data_dir(&data_dir)?;
        let data_dir = trust::resolve(&data_dir, owner.uid)?;
        let data = Dir::open(&data_dir).map_err(Error::io("open", &data_dir))?;
        let dir = trust::resolve(&data_dir.join("postgres"), owner.uid)?;
        Ok(Self { data_dir, data, dir, owner })
    }

    pub(super) fn log(&self) -> Log {
        Log::in_dir(self.data.clone())
    }

    pub(super) fn postmaster(&self) -> Option<Postmaster> {
        Postmaster::read(&self.open().ok()?)
    }

    pub(super) fn open(&self) -> Result<Dir, Error> {
        Dir::open(&self.dir).map_err(Error::io("open", &self.dir))
    }

    /// The major version that created the cluster. `None`: it does not exist yet.
    pub(super) fn major(&self) -> Result<Option<u32>, Error> {
        let path = self.dir.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let major = text.trim().split('.').next().and_then(|n| n.parse().ok());
                major.map(Some).ok_or_else(|| Error::NotACluster(self.dir.clone()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_empty = fs::read_dir(&self.dir).map_or(true, |mut all| all.next().is_none());
                if is_empty { Ok(None) } else { Err(Error::NotACluster(self.dir.clone())) }
            }
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Writes the settings of this release, replacing those of an earlier one.
    pub(super) fn write_settings(&self) -> Result<(), Error> {
        self.write_settings_in(&self.open()?)
    }

    fn write_settings_in(&self, dir: &Dir) -> Result<(), Error> {
        let files = [
            (config::SETTINGS_FILE, config::SETTINGS.to_owned()),
            ("pg_hba.conf", config::HBA.to_owned()),
            ("pg_ident.conf", config::ident(&self.owner.name)),
        ];
        for (name, text) in files {
            self.owner.write(dir, name, &text)?;
        }
        Ok(())
    }

    /// Creates the cluster under another name, syncs it to disk, and renames it. If the process is killed at any
    /// point, it leaves nothing that looks like a cluster.
    pub(super) async fn init(&self, binaries: &Binaries, lock: &Lock) -> Result<(), Error> {
        let begun = Instant::now();
        let draft = self.data_dir.join("postgres.init");
        self.discard(&draft).await?;
        if let Err(error) = self.draft(&draft, binaries, lock).await {
            if let Err(left) = self.discard(&draft).await {
                warn!(error = %left, "left a half-made cluster behind");
            }
            return Err(error);
        }
        fs::rename(&draft, &self.dir).map_err(Error::io("rename to", &self.dir))?;
        sync_dir(&self.data_dir)?;
        info!(
            dir = %self.dir.display(),
            major = binaries.major,
            duration_ms = millis(begun),
            "created a private PostgreSQL cluster"
        );
        Ok(())
    }

    async fn draft(&self, draft: &Path, binaries: &Binaries, lock: &Lock) -> Result<(), Error> {
        match self.initdb(draft, binaries, "C.UTF-8", lock).await {
            // Not every C library has this locale.
            Err(Error::Failed { said, .. }) if said.contains("locale") => {
                self.discard(draft).await?;
                self.initdb(draft, binaries, "C", lock).await?;
            }
            result => result?,
        }
        self.create_database(draft, binaries).await?;
        let dir = Dir::open(draft).map_err(Error::io("open", draft))?;
        let conf = "postgresql.conf";
        let text = dir.read(conf).map_err(Error::io("read", &dir.path(conf)))?;
        self.owner.write(&dir, conf, &(text + "\n" + config::INCLUDE))?;
        self.write_settings_in(&dir)?;
        // Nothing was synced so far; this syncs everything at once.
        let mut command = self.owner.command(&binaries.initdb());
        command.arg("--sync-only").arg("-D").arg(draft);
        self.run("initdb", command, lock.share()?).await
    }

    async fn initdb(
        &self,
        draft: &Path,
        binaries: &Binaries,
        locale: &str,
        lock: &Lock,
    ) -> Result<(), Error> {
        self.owner.private_dir(draft).map_err(Error::io("create", draft))?;
        let mut command = self.owner.command(&binaries.initdb());
        command
            .arg("-D")
            .arg(draft)
            .args(["--username", USER, "--encoding=UTF8", "--data-checksums"])
            .arg(format!("--locale={locale}"))
            .args(["--text-search-config=simple", "--auth-local=peer", "--auth-host=reject"])
            // initdb would remove files by their path, where another process may have begun its own cluster by then.
            .args(["--no-clean", "--no-sync", "--no-instructions"]);
        self.run("initdb", command, lock.share()?).await
    }

    /// Runs SQL in single-user mode, which needs no socket and no client, and ends before the rename.
    async fn create_database(&self, draft: &Path, binaries: &Binaries) -> Result<(), Error> {
        let (reader, mut writer) = io::pipe().map_err(Error::io("make a pipe to", draft))?;
        writer.write_all(config::create_database().as_bytes()).map_err(Error::io("write to", draft))?;
        drop(writer);
        let mut command = self.owner.command(&binaries.postgres());
        command.arg("--single").arg("-D").arg(draft).args([
            "-c",
            "exit_on_error=on",
            "-c",
            "log_checkpoints=off",
            "template1",
        ]);
        self.run("postgres", command, reader.into()).await
    }

    /// Runs a program to its end. It is killed if this process dies or stops waiting.
    async fn run(&self, program: &'static str, mut command: Command, stdin: Stdio) -> Result<(), Error> {
        let log = self.log();
        let before = log.len();
        command.stdin(stdin).stdout(Stdio::null()).stderr(log.append()?);
        let child = Child::spawn(command, Signal::SIGKILL)
            .await
            .map_err(|source| self.cannot_run(source, program))?;
        let status = ended(child.exit()).await;
        if status.success() { Ok(()) } else { Err(log.failure(program, status, before)) }
    }

    /// The error of a program that did not start.
    pub(super) fn cannot_run(&self, source: io::Error, program: &str) -> Error {
        if self.owner.is_out_of_reach(&source) {
            return self.owner.cannot_drop(source);
        }
        Error::io("run", Path::new(program))(source)
    }

    /// Removes what a killed initialisation left. One of its processes may still be writing with relative paths, so
    /// the directory is renamed first, where it cannot disturb the next attempt.
    async fn discard(&self, draft: &Path) -> Result<(), Error> {
        let stale = self.data_dir.join("postgres.stale");
        remove_tree(&stale).await?;
        match fs::rename(draft, &stale) {
            Ok(()) => remove_tree(&stale).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("rename", draft)(error)),
        }
    }
}

/// The mode of the data directory. Created by root, it lets others pass through, because the owner of the cluster
/// must; otherwise it is closed to others.
fn make_data_dir(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    let mode = if Uid::effective().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(mode)))
        .map_err(Error::io("create", dir))
}

async fn remove_tree(dir: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(Error::io("remove", dir)(error)),
        }
    }
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}

pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cluster_or_nothing_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let major = |cluster: &Path| {
            let owner = Owner::of(Path::new("/nonexistent")).unwrap();
            let data_dir = dir.path().to_owned();
            let data = Dir::open(&data_dir).unwrap();
            Cluster { data_dir, data, dir: cluster.to_owned(), owner }.major()
        };
        let cluster = dir.path().join("postgres");
        assert_eq!(major(&cluster).unwrap(), None);
        fs::create_dir(&cluster).unwrap();
        assert_eq!(major(&cluster).unwrap(), None);
        fs::write(cluster.join("PG_VERSION"), "18\n").unwrap();
        assert_eq!(major(&cluster).unwrap(), Some(18));
        fs::rename(cluster.join("PG_VERSION"), cluster.join("photos")).unwrap();
        assert!(matches!(major(&cluster), Err(Error::NotACluster(_))));
    }
}
