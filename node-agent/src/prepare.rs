//! `prepare`: makes the host folder and gives it to the user that the agent runs as.
//!
//! Owns the one step that needs rights of a kind: it runs as root with CAP_CHOWN and nothing else, before the agent.
//! Must never follow a link, leave the folder's file system, touch what is not the agent's, or look into a folder that
//! is as it should be.
//!
//! The folder itself changes hands last: a run that was cut short is done again from the beginning.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};

use crate::cli::{Owner, Prepare};

/// What an agent keeps in its folder; anything else there is somebody else's.
const OURS: [&str; 11] = [
    "blobs",
    "handover",
    "ingest",
    "lock",
    "native",
    "state.0",
    "state.1",
    "state.new",
    "status.yaml",
    "status.yaml.new",
    "versions",
];
/// What may lie in a folder that an agent has not used yet.
const HARMLESS: [&str; 2] = ["hold", "lost+found"];
/// The agent's own tree is four deep.
const DEPTH_MAX: usize = 8;
/// Far more than 256 deployments with every version kept.
const ENTRIES_MAX: usize = 1_000_000;
const MODE: Mode = Mode::RWXU;

/// Makes the folder, or gives it away, whatever its state; says what was done.
///
/// # Errors
/// What could not be done, to which file, and what to give the container for it.
pub fn run(flags: &Prepare) -> anyhow::Result<String> {
    let Prepare { data_dir, owner } = flags;
    let path = data_dir.as_path();
    let made = make(path)?;
    let opening = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, opening, Mode::empty())
        .with_context(|| format!("{} is no folder that can be opened", path.display()))?;
    let before = stat(folder.as_fd(), path)?;
    if is_owned(&before, *owner) && mode(&before) == MODE {
        return Ok(format!("{} is {owner}'s already", path.display()));
    }
    // Without CAP_DAC_OVERRIDE root reads no folder but its own.
    let own = Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    };
    let taken = before.st_uid != own.uid;
    if taken {
        give(folder.as_fd(), own, path)?;
    }
    let checked = names(folder.as_fd(), path).and_then(|names| check_names(&names, path));
    if checked.is_err() && taken {
        // Not ours after all.
        let theirs = Owner {
            uid: before.st_uid,
            gid: before.st_gid,
        };
        give(folder.as_fd(), theirs, path)?;
    }
    checked?;
    set_mode(folder.as_fd(), path)?;
    let mut walk = Walk {
        owner: *owner,
        own,
        device: before.st_dev,
        entries: 0,
        given: 0,
    };
    for name in OURS {
        walk.entry(folder.as_fd(), name, &path.join(name), 1)?;
    }
    give(folder.as_fd(), *owner, path)?;
    let what = if made { "made for" } else { "given to" };
    let files = walk.given;
    Ok(format!(
        "{} {what} {owner}, and {files} files and folders in it",
        path.display()
    ))
}

fn make(path: &Path) -> anyhow::Result<bool> {
    if path.exists() {
        return Ok(false);
    }
    if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))?;
    Ok(true)
}

/// A folder that others use is not given away: `--data-dir /etc` is a slip of the finger.
fn check_names(names: &[String], path: &Path) -> anyhow::Result<()> {
    let ours = |name: &String| OURS.contains(&name.as_str());
    let foreign = |name: &&String| !ours(name) && !HARMLESS.contains(&name.as_str());
    let stranger = names.iter().find(foreign);
    ensure!(
        stranger.is_none() || names.iter().any(ours),
        "{} holds {:?} and nothing of an agent: --data-dir must be a folder of the agent's own",
        path.display(),
        stranger.map_or("", String::as_str)
    );
    Ok(())
}

struct Walk {
    owner: Owner,
    own: Owner,
    device: u64,
    entries: usize,
    given: u64,
}

impl Walk {
    /// Gives one entry away, and what is in it before it. Every step is on a descriptor that was looked at: nobody who
    /// renames things meanwhile leads it elsewhere.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &str,
        path: &Path,
        depth: usize,
    ) -> anyhow::Result<()> {
        let opening = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match rustix::fs::openat(parent, name, opening, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            entry => entry.with_context(|| format!("cannot open {}", path.display()))?,
        };
        self.entries += 1;
        ensure!(
            self.entries <= ENTRIES_MAX && depth <= DEPTH_MAX,
            "{}: more than {ENTRIES_MAX} entries, or deeper than {DEPTH_MAX}: this is no agent's folder",
            path.display()
        );
        let found = stat(entry.as_fd(), path)?;
        let at = path.display();
        ensure!(
            found.st_dev == self.device,
            "{at} is on another file system: unmount it"
        );
        match FileType::from_raw_mode(found.st_mode) {
            // It changes hands after all that is in it, so one that is the owner's is done.
            FileType::Directory if is_owned(&found, self.owner) => {}
            FileType::Directory => self.folder(&entry, &found, path, depth)?,
            FileType::RegularFile => {
                ensure!(
                    found.st_nlink == 1,
                    "{at} has {} names, so it may be somebody else's file: remove it",
                    found.st_nlink
                );
                self.give_entry(&entry, &found, path)?;
            }
            FileType::Socket => self.give_entry(&entry, &found, path)?,
            other => {
                anyhow::bail!("{at} is a {other:?}, which no agent makes: remove it")
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        folder: &OwnedFd,
        found: &Stat,
        path: &Path,
        depth: usize,
    ) -> anyhow::Result<()> {
        if found.st_uid != self.own.uid {
            give(folder.as_fd(), self.own, path)?;
        }
        for name in names(folder.as_fd(), path)? {
            self.entry(folder.as_fd(), &name, &path.join(&name), depth + 1)?;
        }
        give(folder.as_fd(), self.owner, path)?;
        self.given += 1;
        Ok(())
    }

    fn give_entry(&mut self, entry: &OwnedFd, found: &Stat, path: &Path) -> anyhow::Result<()> {
        if !is_owned(found, self.owner) {
            give(entry.as_fd(), self.owner, path)?;
            self.given += 1;
        }
        Ok(())
    }
}

fn stat(fd: BorrowedFd<'_>, path: &Path) -> anyhow::Result<Stat> {
    rustix::fs::fstat(fd).with_context(|| format!("cannot look at {}", path.display()))
}

fn is_owned(found: &Stat, owner: Owner) -> bool {
    (found.st_uid, found.st_gid) == (owner.uid, owner.gid)
}

fn mode(found: &Stat) -> Mode {
    Mode::from_raw_mode(found.st_mode)
}

fn give(fd: BorrowedFd<'_>, owner: Owner, path: &Path) -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    let given = rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH);
    given.with_context(|| {
        format!(
            "cannot give {} to {owner}; it takes runAsUser 0 with the capability CHOWN and a writable mount",
            path.display()
        )
    })
}

fn set_mode(folder: BorrowedFd<'_>, path: &Path) -> anyhow::Result<()> {
    rustix::fs::chmodat(folder, ".", MODE, AtFlags::empty())
        .with_context(|| format!("cannot close {} to others (mode 0700)", path.display()))
}

fn names(folder: BorrowedFd<'_>, path: &Path) -> anyhow::Result<Vec<String>> {
    let reading = || -> io::Result<Vec<String>> {
        let opening = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(folder, ".", opening, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
            if names.len() > ENTRIES_MAX {
                return Err(io::Error::other(format!("more than {ENTRIES_MAX} entries")));
            }
        }
        Ok(names)
    };
    reading().with_context(|| format!("cannot list {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    const AGENT: Owner = Owner {
        uid: 65532,
        gid: 65532,
    };

    /// Giving files away takes root; elsewhere these tests give to the user that runs them.
    fn owner() -> Owner {
        if rustix::process::geteuid().is_root() {
            return AGENT;
        }
        Owner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    fn prepare(path: &Path) -> anyhow::Result<String> {
        run(&Prepare {
            data_dir: path.to_owned(),
            owner: owner(),
        })
    }

    fn owner_of(path: &Path) -> (u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid())
    }

    fn is_given(path: &Path) -> bool {
        owner_of(path) == (owner().uid, owner().gid)
    }

    #[test]
    fn a_folder_is_made_closed_and_given_away_and_a_second_time_nothing_happens() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("var/rimward");
        let said = prepare(&path).unwrap();
        assert!(
            said.contains("made for") || said.contains("already"),
            "{said}"
        );
        assert!(is_given(&path));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o700
        );
        assert!(prepare(&path).unwrap().contains("already"));
    }

    #[test]
    fn what_an_agent_of_another_user_left_is_given_away_and_what_a_person_put_there_is_not() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["blobs/sha256", "versions/shop.digits/ab"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let ours = [
            "lock",
            "state.0",
            "blobs/sha256/ab",
            "versions/shop.digits/ab/manifest.json",
        ];
        for name in ours.iter().chain(&["hold", "notes.txt"]) {
            fs::write(root.path().join(name), "x").unwrap();
        }
        let before = owner_of(&root.path().join("notes.txt"));
        prepare(root.path()).unwrap();
        for name in ours
            .iter()
            .chain(&["", "blobs", "blobs/sha256", "versions/shop.digits"])
        {
            assert!(is_given(&root.path().join(name)), "{name}");
        }
        for name in ["hold", "notes.txt"] {
            assert_eq!(owner_of(&root.path().join(name)), before, "{name}");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let secret = outside.path().join("shadow");
        fs::write(&secret, "x").unwrap();
        let before = owner_of(&secret);
        symlink(outside.path(), root.path().join("blobs")).unwrap();
        let error = prepare(root.path()).unwrap_err().to_string();
        assert!(error.contains("blobs is a Symlink"), "{error}");
        fs::remove_file(root.path().join("blobs")).unwrap();

        fs::hard_link(&secret, root.path().join("lock")).unwrap();
        let error = prepare(root.path()).unwrap_err().to_string();
        assert!(error.contains("2 names"), "{error}");
        assert_eq!(owner_of(&secret), before);
        fs::remove_file(root.path().join("lock")).unwrap();
        prepare(root.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_somebody_elses_is_not_given_away() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.path().join("passwd"), "x").unwrap();
        let before = owner_of(root.path());
        let error = prepare(root.path()).unwrap_err().to_string();
        assert!(
            error.contains("\"passwd\"") && error.contains("--data-dir"),
            "{error}"
        );
        assert_eq!(owner_of(root.path()), before);
    }

    #[test]
    fn a_run_that_was_cut_short_is_finished_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.path().join("native")).unwrap();
        fs::write(root.path().join("native/key"), "x").unwrap();
        fs::write(root.path().join("state.0"), "x").unwrap();
        // The first part was given; the folder itself is not.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(
                root.path().join("state.0"),
                Some(AGENT.uid),
                Some(AGENT.gid),
            )
            .unwrap();
        }
        prepare(root.path()).unwrap();
        for name in ["state.0", "native/key", "native", ""] {
            assert!(is_given(&root.path().join(name)), "{name}");
        }
    }
}
