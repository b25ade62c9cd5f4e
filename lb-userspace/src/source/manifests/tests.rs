use std::fs;
use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

/// "Within a second".
const SOON: Duration = Duration::from_secs(1);

struct Watched {
    root: tempfile::TempDir,
    manifests: Manifests,
}

impl Watched {
    /// A folder that is watched and has been looked at once.
    async fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path().join("manifests");
        fs::create_dir(&path).expect("made");
        let mut watched = Self { root, manifests: Manifests::new(path) };
        let first = watched.next().await;
        assert!(first.status.is_some_and(|status| status.synced));
        watched
    }

    fn path(&self, name: &str) -> PathBuf {
        self.manifests.path.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    async fn next(&mut self) -> Update {
        timeout(SOON, self.manifests.next()).await.expect("within a second").expect("no failure")
    }

    /// Names of the changed files of the next update.
    async fn changed(&mut self) -> Vec<String> {
        names(&self.next().await)
    }

    async fn nothing_happens(&mut self) {
        let update = timeout(SOON, self.manifests.next()).await;
        assert!(update.is_err(), "{update:?}");
    }
}

fn names(update: &Update) -> Vec<String> {
    let name =
        |change: &Change| change.path.file_name().expect("named").to_string_lossy().into_owned();
    update.changes.iter().map(name).collect()
}

#[tokio::test]
async fn files_that_come_change_and_go_are_seen() {
    let mut watched = Watched::new().await;
    watched.write("a.yaml", "# 1");
    assert_eq!(watched.changed().await, ["a.yaml"]);
    watched.write("a.yaml", "# 2");
    assert_eq!(watched.changed().await, ["a.yaml"]);
    fs::remove_file(watched.path("a.yaml")).expect("removed");
    assert_eq!(watched.changed().await, ["a.yaml"]);
}

#[tokio::test]
async fn a_file_replaced_as_editors_do_is_one_change() {
    let mut watched = Watched::new().await;
    watched.write("a.yaml", "# 1");
    watched.changed().await;
    watched.write(".a.yaml.swp", "# half");
    watched.write("a.yaml~", "# 1");
    fs::rename(watched.path(".a.yaml.swp"), watched.path("a.yaml")).expect("renamed");
    assert_eq!(watched.changed().await, ["a.yaml"]);
    watched.nothing_happens().await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_not_submitted() {
    let mut watched = Watched::new().await;
    watched.write("a.yaml", "# 1");
    watched.changed().await;
    watched.write("a.yaml", "# 1");
    watched.nothing_happens().await;
}

#[tokio::test]
async fn a_burst_is_one_batch() {
    let mut watched = Watched::new().await;
    for n in 0..50 {
        watched.write(&format!("{n:02}.yaml"), "# 1");
    }
    assert_eq!(watched.changed().await.len(), 50);
}

#[tokio::test]
async fn a_file_is_not_read_while_it_is_written() {
    use std::io::Write as _;
    let mut watched = Watched::new().await;
    let mut file = fs::File::create(watched.path("a.yaml")).expect("made");
    file.write_all(b"# half").expect("written");
    let path = watched.path("a.yaml");
    let writer = async {
        // Longer than the quiet time, shorter than the longest batch.
        tokio::time::sleep(Duration::from_millis(200)).await;
        file.write_all(b" and whole: no yaml").expect("written");
        drop(file);
    };
    let (update, ()) = tokio::join!(watched.next(), writer);
    assert_eq!(names(&update), ["a.yaml"]);
    assert_eq!(fs::read_to_string(path).expect("there"), "# half and whole: no yaml");
    watched.nothing_happens().await;
}

#[tokio::test]
async fn a_swapped_data_link_changes_the_files_behind_it() {
    let mut watched = Watched::new().await;
    for (version, text) in [("..v1", "# 1"), ("..v2", "# 2")] {
        fs::create_dir(watched.path(version)).expect("made");
        watched.write(&format!("{version}/a.yaml"), text);
    }
    symlink("..v1", watched.path("..data")).expect("linked");
    symlink("..data/a.yaml", watched.path("a.yaml")).expect("linked");
    assert_eq!(watched.changed().await, ["a.yaml"]);
    symlink("..v2", watched.path("..data_tmp")).expect("linked");
    fs::rename(watched.path("..data_tmp"), watched.path("..data")).expect("renamed");
    assert_eq!(watched.changed().await, ["a.yaml"]);
}

#[tokio::test]
async fn the_target_of_a_link_may_change_in_place() {
    let mut watched = Watched::new().await;
    let target = watched.root.path().join("elsewhere");
    fs::create_dir(&target).expect("made");
    fs::write(target.join("t.yaml"), "# 1").expect("written");
    symlink(target.join("t.yaml"), watched.path("a.yaml")).expect("linked");
    assert_eq!(watched.changed().await, ["a.yaml"]);
    fs::write(target.join("t.yaml"), "# 2").expect("written");
    assert_eq!(watched.changed().await, ["a.yaml"]);
}

#[tokio::test]
async fn a_folder_removed_and_made_again_is_followed() {
    let mut watched = Watched::new().await;
    watched.write("a.yaml", "# 1");
    watched.changed().await;
    fs::remove_dir_all(&watched.manifests.path).expect("removed");
    let update = watched.next().await;
    assert_eq!(names(&update), ["a.yaml"]);
    fs::create_dir(&watched.manifests.path).expect("made");
    watched.write("b.yaml", "# 2");
    while watched.manifests.status.error.is_some() {
        watched.next().await;
    }
    watched.write("c.yaml", "# 3");
    assert_eq!(watched.changed().await, ["c.yaml"]);
}

#[tokio::test]
async fn a_folder_replaced_by_another_is_read_anew() {
    let mut watched = Watched::new().await;
    watched.write("a.yaml", "# 1");
    watched.changed().await;
    let next = watched.root.path().join("next");
    fs::create_dir(&next).expect("made");
    fs::write(next.join("b.yaml"), "# 2").expect("written");
    fs::rename(&watched.manifests.path, watched.root.path().join("old")).expect("renamed");
    fs::rename(&next, &watched.manifests.path).expect("renamed");
    assert_eq!(watched.changed().await, ["b.yaml", "a.yaml"]);
    watched.write("c.yaml", "# 3");
    assert_eq!(watched.changed().await, ["c.yaml"]);
}

#[tokio::test]
async fn a_folder_missing_at_the_start_is_awaited_and_not_synced() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("manifests");
    let mut manifests = Manifests::new(path.clone());
    let first = timeout(SOON, manifests.next()).await.expect("at once").expect("no failure");
    let status = first.status.expect("something to say");
    assert!(!status.synced && status.error.is_some(), "{status:?}");
    fs::create_dir(&path).expect("made");
    fs::write(path.join("a.yaml"), "# 1").expect("written");
    let update = timeout(SOON, manifests.next()).await.expect("soon").expect("no failure");
    assert_eq!(names(&update), ["a.yaml"]);
    assert!(update.status.is_some_and(|status| status.synced && status.error.is_none()));
}
