//! What is left of a file after restarts, cuts and flips.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn key(id: &str) -> BundleKey {
    BundleKey {
        kind: 1,
        id: id.to_owned(),
    }
}

fn put(id: &str, revision: u64, content: &str) -> Step {
    Step::Put(Bundle {
        id: id.to_owned(),
        kind: 1,
        format: 1,
        revision,
        sha256: vec![7; 32],
        content: content.to_owned().into_bytes().into(),
        ..Default::default()
    })
}

fn commit(revision: u64) -> Step {
    Step::Commit {
        installation: "inst".to_owned(),
        revision,
    }
}

fn remove(id: &str) -> Step {
    Step::Remove(Removal {
        id: id.to_owned(),
        kind: 1,
        revision: 9,
    })
}

/// What is held, by id.
fn contents(lkg: &LastKnownGood) -> Vec<(String, String)> {
    let mut all: Vec<_> = lkg
        .keys()
        .map(|key| {
            let bundle = lkg.read(key).unwrap().unwrap();
            (
                key.id.clone(),
                String::from_utf8(bundle.content.to_vec()).unwrap(),
            )
        })
        .collect();
    all.sort();
    all
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(id, content)| ((*id).to_owned(), (*content).to_owned()))
        .collect()
}

/// C1: what was appended is there after a restart, and nobody else may read it.
#[test]
fn what_was_appended_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    assert_eq!((lkg.revision(), lkg.installation()), (0, ""));
    lkg.append(&[put("a", 1, "one"), put("b", 2, "secret-of-b"), commit(2)])
        .unwrap();
    lkg.append(&[put("a", 3, "two"), remove("b"), commit(3)]).unwrap();
    assert!(matches!(
        LastKnownGood::open(directory.path()),
        Err(LkgError::InUse(_))
    ));
    drop(lkg);
    for name in [NAME, "seal.key"] {
        let path = directory.path().join(name);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{name}"
        );
        assert!(memchr::memmem::find(&fs::read(path).unwrap(), b"secret-of-b").is_none());
    }
    let lkg = LastKnownGood::open(directory.path()).unwrap();
    assert_eq!(contents(&lkg), pairs(&[("a", "two")]));
    assert_eq!(
        (lkg.revision(), lkg.installation(), lkg.damaged()),
        (3, "inst", false)
    );
    assert_eq!(lkg.held(&key("a")).unwrap().revision, 3);
}

/// C1: wherever a write stops, what was committed before it is whole, and never more than was written is there.
#[test]
fn a_file_cut_anywhere_holds_a_prefix() {
    let directory = tempfile::tempdir().unwrap();
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    let steps = [
        vec![put("a", 1, "a1"), commit(1)],
        vec![put("b", 2, "b2"), commit(2)],
        vec![put("a", 3, "a3"), remove("b"), commit(3)],
    ];
    // After each single record: what is held, and the revision.
    let mut states = vec![(lkg.end, contents(&lkg), 0)];
    for step in steps.iter().flatten() {
        lkg.append(std::slice::from_ref(step)).unwrap();
        states.push((lkg.end, contents(&lkg), lkg.revision()));
    }
    drop(lkg);
    let path = directory.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let lkg = LastKnownGood::open(directory.path()).unwrap();
        let expected = states
            .iter()
            .rev()
            .find(|(end, ..)| *end <= cut as u64)
            .unwrap_or(&states[0]);
        assert_eq!(
            (contents(&lkg), lkg.revision(), lkg.damaged()),
            (expected.1.clone(), expected.2, false),
            "{cut}"
        );
    }
}

/// C1: a flipped byte costs the record that it hits and no other; the loss is known unless it is the file's end.
#[test]
fn a_flipped_byte_costs_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    let mut ends = Vec::new();
    for (id, revision) in [("a", 1), ("b", 2), ("c", 3)] {
        lkg.append(&[put(id, revision, id), commit(revision)]).unwrap();
        ends.push(lkg.end as usize);
    }
    let last_commit = ends[2] - lkg_record_length(&lkg, &commit(3));
    drop(lkg);
    let path = directory.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        let lkg = LastKnownGood::open(directory.path()).unwrap();
        let left = contents(&lkg);
        assert!(left.len() >= 2, "{at}: {left:?}");
        assert!(left.iter().all(|(id, content)| id == content));
        let expected = match at {
            // The last commit: as if it had not been written yet.
            _ if at >= last_commit => (false, 2),
            _ => (true, 0),
        };
        assert_eq!((lkg.damaged(), lkg.revision()), expected, "{at}");
    }
}

fn lkg_record_length(lkg: &LastKnownGood, step: &Step) -> usize {
    let mut bytes = Vec::new();
    lkg.sealer.seal(step, &mut bytes).unwrap();
    bytes.len()
}

/// C1: a refused bundle is remembered over a restart until it comes.
#[test]
fn refusals_are_remembered_until_the_bundle_comes() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = BundleOutcome {
        id: "a".into(),
        kind: 1,
        revision: 4,
        refusal: "sha-256".into(),
    };
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    lkg.append(&[put("a", 1, "old"), Step::Refuse(outcome.clone()), commit(4)])
        .unwrap();
    lkg.rewrite().unwrap();
    drop(lkg);
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    assert_eq!(lkg.refused().collect::<Vec<_>>(), [&outcome]);
    assert_eq!(contents(&lkg), pairs(&[("a", "old")]));
    lkg.append(&[put("a", 4, "new")]).unwrap();
    assert_eq!(lkg.refused().count(), 0);
}

/// C1: the file does not grow with the number of changes, and nothing is lost when it is written anew.
#[test]
fn what_is_not_needed_any_more_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    let large = "x".repeat(512 * 1024);
    let mut most = 0;
    for revision in 1..=64 {
        let id = if revision % 2 == 0 { "even" } else { "odd" };
        lkg.append(&[put(id, revision, &large), commit(revision)])
            .unwrap();
        lkg.compact().unwrap();
        most = most.max(lkg.end);
    }
    assert!(most < 7 * 1024 * 1024, "{most}");
    // An unfinished rewrite is of no account.
    fs::write(directory.path().join(NEW_NAME), b"half").unwrap();
    drop(lkg);
    let lkg = LastKnownGood::open(directory.path()).unwrap();
    assert_eq!(contents(&lkg), pairs(&[("even", &large), ("odd", &large)]));
    assert_eq!(lkg.revision(), 64);
}

/// C1: without its key the file is as good as empty, and says so by asking for everything.
#[test]
fn a_lost_key_means_to_ask_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    lkg.append(&[put("a", 1, "one"), commit(1)]).unwrap();
    drop(lkg);
    fs::remove_file(directory.path().join("seal.key")).unwrap();
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    assert_eq!((contents(&lkg), lkg.revision()), (vec![], 0));
    lkg.append(&[put("a", 1, "one"), commit(1)]).unwrap();
    drop(lkg);
    assert_eq!(LastKnownGood::open(directory.path()).unwrap().revision(), 1);
}

/// C1: a failed write changes nothing that is held, and the next one begins with a clean file.
#[test]
fn a_failed_write_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let mut lkg = LastKnownGood::open(directory.path()).unwrap();
    lkg.append(&[put("a", 1, "one"), commit(1)]).unwrap();
    let readable = File::open(directory.path().join(NAME)).unwrap();
    lkg.file = readable;
    assert!(lkg.append(&[put("a", 2, "two"), commit(2)]).is_err());
    assert_eq!((contents(&lkg), lkg.revision()), (pairs(&[("a", "one")]), 1));
    lkg.append(&[put("a", 3, "three"), commit(3)]).unwrap();
    drop(lkg);
    let lkg = LastKnownGood::open(directory.path()).unwrap();
    assert_eq!((contents(&lkg), lkg.revision()), (pairs(&[("a", "three")]), 3));
}
