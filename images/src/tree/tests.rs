use super::*;
use std::process::Command;

/// A package as Debian's own tool makes it.
fn package(folder: &Path, name: &str, fill: impl FnOnce(&Path)) -> std::path::PathBuf {
    let content = folder.join(name);
    fs::create_dir_all(content.join("DEBIAN")).expect("a folder");
    let control = format!("Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n");
    fs::write(content.join("DEBIAN/control"), control).expect("a control file");
    fill(&content);
    let deb = folder.join(format!("{name}.deb"));
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-b"])
        .args([&content, &deb])
        .stdout(Stdio::null())
        .status()
        .expect("dpkg-deb runs");
    assert!(status.success());
    deb
}

fn file(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("below a folder")).expect("a folder");
    fs::write(path, content).expect("a file");
}

fn tar_of(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    tree.write_tar(&mut bytes).expect("memory takes it");
    bytes
}

#[test]
fn packages_merge_into_usr_and_the_order_they_come_in_does_not_show() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let old_style = package(folder.path(), "old", |root| {
        file(&root.join("lib/x86_64-linux-gnu/libold.so.1"), "old");
        file(&root.join("bin/old"), "#!/bin/sh\n");
        symlink("libold.so.1", root.join("lib/x86_64-linux-gnu/libold.so")).expect("a link");
    });
    let new_style = package(folder.path(), "new", |root| {
        file(&root.join("usr/lib/x86_64-linux-gnu/libnew.so.1"), "new");
        fs::hard_link(
            root.join("usr/lib/x86_64-linux-gnu/libnew.so.1"),
            root.join("usr/lib/x86_64-linux-gnu/libnew.so.2"),
        )
        .expect("a second name");
    });
    let build = |packages: &[&Path]| {
        let mut tree = Tree::default();
        for package in packages {
            tree.add_package(package).expect("a package");
        }
        tree.put_merged_links();
        tree
    };
    let tree = build(&[&old_style, &new_style]);
    assert_eq!(tar_of(&tree), tar_of(&build(&[&new_style, &old_style])));
    assert_eq!(tree.get("/lib"), Some(&Node::Link { target: "usr/lib".into() }));
    for path in ["usr/bin/old", "/bin/old", "usr/lib/x86_64-linux-gnu/libnew.so.2"] {
        assert!(matches!(tree.get(path), Some(Node::File { .. })), "{path}");
    }
    assert_eq!(tree.get("lib/x86_64-linux-gnu/libold.so"), Some(&Node::Link { target: "libold.so.1".into() }));
}

#[test]
fn two_packages_with_different_files_of_one_name_are_refused() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let make = |name, content| package(folder.path(), name, |root| file(&root.join("etc/same"), content));
    let mut tree = Tree::default();
    tree.add_package(&make("one", "1")).expect("the first is fine");
    tree.add_package(&make("two", "1")).expect("equal content is fine");
    let error = tree.add_package(&make("three", "3")).expect_err("it would win or lose silently");
    assert!(error.to_string().contains("/etc/same"), "{error}");
}

#[test]
fn a_file_that_is_no_package_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("broken.deb");
    file(&path, "this is not a package");
    let error = Tree::default().add_package(&path).expect_err("not a package");
    assert!(error.to_string().contains("broken.deb"), "{error}");
}

#[test]
fn archives_cannot_lead_out() {
    for (path, expected) in [("./usr/bin/x", Some("usr/bin/x")), ("/etc/x", Some("etc/x")), ("usr/../../x", None)] {
        assert_eq!(clean(Path::new(path)).ok().as_deref(), expected, "{path}");
    }
}

#[test]
fn trimming_takes_folders_whole_and_tells_what_was_not_there() {
    let mut tree = Tree::default();
    for path in ["usr/share/doc/a/copyright", "usr/lib/p/tests/x.py", "usr/lib/p/y.py", "usr/share/docs"] {
        tree.put_file(path, 0o644, *b"x");
    }
    let unused = tree
        .trim(&["/usr/share/doc", "/usr/lib/**/tests", "/usr/share/nothing", "/usr/*/y.py"])
        .expect("patterns are right");
    assert_eq!(unused, ["/usr/share/nothing", "/usr/*/y.py"]);
    let left: Vec<_> = tree.nodes().map(|(path, _)| path).collect();
    assert_eq!(left, ["usr", "usr/lib", "usr/lib/p", "usr/lib/p/y.py", "usr/share", "usr/share/docs"]);
}

#[test]
fn the_canonical_form_names_nobody_and_no_time_of_this_machine() {
    let mut tree = Tree::default();
    tree.put_directory("tmp", 0o1777);
    tree.put_file("usr/bin/x", 0o755, *b"content");
    tree.put_link("etc/resolv.conf", "/run/resolv.conf");
    tree.put_file(&format!("usr/{}", "long/".repeat(60)), 0o644, *b"deep");
    let bytes = tar_of(&tree);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut seen = Vec::new();
    for entry in archive.entries().expect("a tar archive") {
        let entry = entry.expect("an entry");
        let header = entry.header();
        assert_eq!((header.uid().ok(), header.gid().ok()), (Some(0), Some(0)));
        assert_eq!(header.mtime().ok(), Some(MODIFIED));
        seen.push((entry.path().expect("a path").display().to_string(), header.mode().expect("a mode")));
    }
    assert!(seen.contains(&("tmp/".into(), 0o1777)), "{seen:?}");
    assert!(seen.contains(&("usr/bin/x".into(), 0o755)), "{seen:?}");
}

/// The tools' tree begins with the link `bin`, whose folder above was not there: no image could be made.
#[test]
fn a_tree_whose_first_entry_is_a_link_becomes_a_folder() {
    let mut tree = Tree::default();
    tree.put_merged_links();
    tree.put_file("usr/bin/x", 0o755, *b"content");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let root = scratch.path().join("root");
    tree.write_folder(&root).expect("it is written");
    assert_eq!(fs::read(root.join("bin/x")).expect("through the link"), b"content");
}
