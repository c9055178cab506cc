//! Databases that cannot be used: each says what is wrong and what to do, and never the password.

use futures::future::join_all;

use super::{
    super::*,
    new_database,
    server::{OWNER, PASSWORD, Server, run, server},
};

async fn refusal(url: &str, options: &Options) -> String {
    let error = Postgres::open(url, options).await.map(drop).expect_err("it was opened");
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error} {source} {error:?}");
    for secret in [PASSWORD, "wrong-secret"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    error.to_string()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_database_say_so() {
    let server = server();
    let database = server.database().await;
    let port = server.port();
    let wrong = server.tcp_url(port, &database).replace(PASSWORD, "wrong-secret");
    let text = refusal(&wrong, &Options::default()).await;
    says(&text, &[&database, &format!("127.0.0.1:{port}"), "user or the password", "database-url"]);
    let text = refusal(&server.tcp_url(port, "nowhere"), &Options::default()).await;
    says(&text, &["\"nowhere\"", "does not exist", "CREATE DATABASE"]);
    says(&refusal("postgres://h:port/d", &Options::default()).await, &["database-url", "postgres://USER"]);
    Postgres::open(&server.tcp_url(port, &database), &Options::default()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let error = Postgres::open("postgres://u:wrong-secret@127.0.0.1:1/d", &Options::default()).await.map(drop);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && !format!("{error:?}").contains("wrong-secret"), "{error:?}");
}

#[tokio::test]
async fn an_empty_database_is_not_touched_where_nobody_may_migrate_it() {
    let server = server();
    let database = server.database().await;
    let url = server.url(OWNER, &database);
    let text = refusal(&url, &Options { migrate: false, ..Options::default() }).await;
    says(&text, &["its schema is 0", "no-migrate", "rejoin migrate"]);
    let mut admin = server.admin(&database).await;
    run(&mut admin, "ALTER DATABASE postgres SET search_path = public; CREATE ROLE guest_a LOGIN").await;
    let text = refusal(&server.url("guest_a", &database), &Options::default()).await;
    says(&text, &["\"guest_a\" may not create tables", "GRANT CREATE"]);
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(tables, 0, "it is as it was");
}

#[tokio::test]
async fn a_role_that_may_not_write_is_told_what_it_lacks() {
    let server = server();
    let database = server.database().await;
    Postgres::open(&server.url(OWNER, &database), &Options::default()).await.unwrap().close().await;
    let mut admin = server.admin(&database).await;
    run(&mut admin, "CREATE ROLE guest_b LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest_b").await;
    let text = refusal(&server.url("guest_b", &database), &Options::default()).await;
    says(&text, &["\"guest_b\" may not", "grant it"]);
    run(&mut admin, "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest_b").await;
    let store = Postgres::open(&server.url("guest_b", &database), &Options::default()).await.unwrap();
    store.renew(&Incarnation::mint(), 1, 0).await.unwrap();
    run(&mut admin, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").await;
    says(&refusal(&server.url("guest_b", &database), &Options::default()).await, &["EXECUTE pg_control_system()"]);
}

#[tokio::test]
async fn a_newer_schema_and_another_programs_are_left_alone() {
    let server = server();
    let (newer, other) = (server.database().await, server.database().await);
    for database in [&newer, &other] {
        Postgres::open(&server.url(OWNER, database), &Options::default()).await.unwrap().close().await;
    }
    let add = "INSERT INTO _sqlx_migrations VALUES (9000, 'later', now(), true, '', 0)";
    run(&mut server.admin(&newer).await, add).await;
    let text = refusal(&server.url(OWNER, &newer), &Options::default()).await;
    says(&text, &["newer version of rejoin", "schema 9000"]);
    run(&mut server.admin(&other).await, "UPDATE _sqlx_migrations SET checksum = 'x'").await;
    says(&refusal(&server.url(OWNER, &other), &Options::default()).await, &["another program", "database of its own"]);
    let taken = server.database().await;
    run(&mut server.admin(&taken).await, "CREATE TABLE sessions (id int)").await;
    says(&refusal(&server.url(OWNER, &taken), &Options::default()).await, &["another program", "database of its own"]);
}

#[tokio::test]
async fn several_nodes_may_start_at_once_on_an_empty_database() {
    let (url, options) = (new_database().await, Options::default());
    let opened = join_all((0..5).map(|_| Postgres::open(&url, &options))).await;
    for store in opened {
        let store = store.unwrap();
        store.needs_work(1).await.unwrap();
        store.close().await;
        assert!(matches!(store.needs_work(1).await, Err(Error::Unavailable { .. })), "it is closed");
    }
}

#[tokio::test]
async fn a_standby_is_refused_and_its_promotion_is_another_history() {
    let server = tokio::task::spawn_blocking(|| Server::start(true)).await.unwrap();
    let url = server.url("rejoin", "postgres");
    says(&refusal(&url, &Options::default()).await, &["read-only", "primary"]);
    let mut admin = server.admin("postgres").await;
    let promoted: bool = sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut admin).await.unwrap();
    assert!(promoted);
    let store = Postgres::open(&url, &Options::default()).await.unwrap();
    let history = store.renew(&Incarnation::mint(), 1, 0).await.unwrap().history;
    let parts: Vec<&str> = history.split('-').collect();
    assert_eq!(parts[1..], ["00000002", "1"], "the timeline after the promotion: {history}");
    assert!(parts[0].parse::<u64>().is_ok(), "the cluster's own number: {history}");
    assert_eq!(store.new_history().await.unwrap(), format!("{}-00000002-2", parts[0]));
}
