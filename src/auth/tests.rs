use super::*;

#[test]
fn a_missing_user_id_becomes_a_random_one_and_a_missing_name_the_id() {
    let one = Identity::open(None, None).unwrap();
    let two = Identity::open(None, None).unwrap();
    assert_ne!(one, two);
    assert_eq!(one.person.id, one.person.name);
    assert!(one.is_guest() && !Identity::open(Some("ada"), None).unwrap().is_guest());
    assert_eq!((one.access("any"), one.is_admin(), one.expires()), (Access::Admin, true, None));
}

#[test]
fn ids_that_would_break_a_presence_map_are_refused() {
    for bad in ["agent:echo", "__proto__", "constructor", "prototype", "a\u{0}b"] {
        assert!(Identity::open(Some(bad), None).is_err(), "{bad}");
    }
    assert!(Identity::open(Some("ünï"), Some("Ada L.")).is_ok());
}

mod keys;
