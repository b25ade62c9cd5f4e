use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn name(name: &str) -> NetnsName {
    name.parse().expect("a name")
}

fn base() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let base = root.path().join("netns");
    (root, base)
}

fn lb(base: &Path) -> ResolvConfs {
    ResolvConfs::new(base, Path::new("/run/lb"))
}

#[test]
fn names_are_those_that_ip_netns_accepts() {
    let longest = "n".repeat(255);
    for good in ["pod-1", "...", "a b", "-", &longest] {
        assert!(good.parse::<NetnsName>().is_ok(), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "/", "a\0", &format!("{longest}n")] {
        assert!(bad.parse::<NetnsName>().is_err(), "{bad}");
    }
}

#[test]
fn what_is_installed_is_marked_readable_by_all_and_replaced_by_the_next() {
    let (_root, base) = base();
    let path = lb(&base).install(&name("a"), "nameserver 10.96.0.10\n").expect("installed");
    assert_eq!(path, base.join("a/resolv.conf"));
    let text = fs::read_to_string(&path).expect("readable");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with('#') && lines[0].contains("\"/run/lb\""), "{text}");
    assert_eq!(lines[1..], ["nameserver 10.96.0.10"]);
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);

    lb(&base).install(&name("a"), "nameserver 10.96.0.11\n").expect("installed again");
    let text = fs::read_to_string(&path).expect("readable");
    assert!(text.ends_with("\nnameserver 10.96.0.11\n"), "{text}");
    let files = fs::read_dir(base.join("a")).expect("readable").count();
    assert_eq!(files, 1, "nothing but the file stays");
}

#[test]
fn removing_leaves_nothing_and_may_be_repeated() {
    let (root, base) = base();
    let confs = ResolvConfs::new(&base, Path::new("/run/lb/"));
    let path = lb(&base).install(&name("a"), "").expect("installed");
    fs::write(base.join("a").join(format!("{DRAFT}1")), "of a killed process").expect("written");
    let removed = confs.remove(&name("a")).expect("ours");
    assert_eq!(removed, [path, base.join("a"), base.clone()]);
    assert_eq!(fs::read_dir(root.path()).expect("readable").count(), 0);
    assert_eq!(confs.remove(&name("a")).expect("nothing there"), Vec::<PathBuf>::new());
}

#[test]
fn other_files_of_the_namespace_stay_with_their_folder() {
    let (_root, base) = base();
    fs::create_dir_all(base.join("a")).expect("made");
    fs::write(base.join("a/hosts"), "").expect("written");
    let path = lb(&base).install(&name("a"), "").expect("installed");
    assert_eq!(lb(&base).remove(&name("a")).expect("ours"), [path]);
    assert!(base.join("a/hosts").exists());
}

#[test]
fn what_is_not_lbs_is_neither_replaced_nor_removed() {
    let (root, base) = base();
    let outside = root.path().join("outside");
    let ours = lb(&root.path().join("other")).install(&name("a"), "").expect("installed");
    let mark = fs::read_to_string(ours).expect("readable");
    type Make<'a> = &'a dyn Fn(&Path) -> io::Result<()>;
    let cases: [(&str, Make<'_>); 5] = [
        ("a file of a person", &|path| fs::write(path, "nameserver 1.1.1.1\n")),
        ("an empty file", &|path| fs::write(path, "")),
        ("a mark that is not in the first line", &|path| fs::write(path, format!("\n{mark}"))),
        ("a link to a file of ours", &|path| {
            fs::write(&outside, &mark)?;
            symlink(&outside, path)
        }),
        ("a folder", &|path| fs::create_dir(path)),
    ];
    for (description, make) in cases {
        let path = base.join("a/resolv.conf");
        fs::create_dir_all(base.join("a")).expect("made");
        make(&path).expect(description);
        let before = fs::read(&path).ok();
        for result in
            [lb(&base).install(&name("a"), "").map(drop), lb(&base).remove(&name("a")).map(drop)]
        {
            let error = result.expect_err(description).to_string();
            let named = error.contains(&path.display().to_string());
            assert!(named && error.contains("move it away"), "{description}: {error}");
        }
        assert_eq!(lb(&base).remove_all().expect("skipped"), Vec::<PathBuf>::new());
        assert_eq!(fs::read(&path).ok(), before, "{description}");
        assert!(path.symlink_metadata().is_ok(), "{description}");
        fs::remove_dir_all(base.join("a")).expect("removed");
    }
    assert_eq!(fs::read_to_string(outside).expect("still there"), mark);
}

#[test]
fn a_link_in_the_place_of_the_folder_is_not_followed() {
    let (root, base) = base();
    let elsewhere = root.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    fs::create_dir(&base).expect("made");
    symlink(&elsewhere, base.join("a")).expect("linked");
    let error = lb(&base).install(&name("a"), "").expect_err("a link").to_string();
    assert!(error.contains("does not follow"), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).expect("readable").count(), 0);
    assert_eq!(lb(&base).remove_all().expect("skipped"), Vec::<PathBuf>::new());
}

#[test]
fn of_several_agents_each_takes_away_its_own() {
    let (_root, base) = base();
    let other = ResolvConfs::new(&base, Path::new("/run/lb-2"));
    let (a, c) = ["a", "c"].map(|ours| lb(&base).install(&name(ours), "").expect(ours)).into();
    let theirs = other.install(&name("b"), "").expect("installed");
    let error = lb(&base).install(&name("b"), "").expect_err("another's").to_string();
    assert!(error.contains("--remove --run-dir \"/run/lb-2\""), "{error}");

    let removed = lb(&base).remove_all().expect("removed");
    assert_eq!(removed, [a, base.join("a"), c, base.join("c")]);
    assert!(theirs.exists());
    other.remove_all().expect("removed");
    assert!(!base.exists());
}

#[test]
fn a_file_that_comes_while_ours_is_written_stays() {
    let (_root, base) = base();
    let folder = lb(&base).make_folder(&name("a")).expect("made");
    write(&folder, "draft", "ours").expect("written");
    fs::write(base.join("a/resolv.conf"), "theirs").expect("written");
    assert_eq!(place(&folder, "draft", true), Err(Errno::EXIST));
    assert_eq!(fs::read(base.join("a/resolv.conf")).expect("readable"), b"theirs");
}
