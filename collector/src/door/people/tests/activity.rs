//! The activity log: who did what to what, from where, before and after.

use super::*;

const WEB: &str = "00000000000000000000000000000001";

#[tokio::test]
async fn a_record_says_who_what_from_where_before_and_after() {
    let bench = bench().await;
    bench.add_node(WEB, "web-1").await;
    let path = format!("/api/v1/nodes/{WEB}/suspend");
    let (status, refused) = bench.as_admin(Method::POST, &path, "").await;
    assert_eq!(
        status,
        StatusCode::BAD_REQUEST,
        "without a reason: {refused}"
    );
    let (status, node) = bench
        .as_admin(Method::POST, &path, r#"{"reason":"disk is replaced"}"#)
        .await;
    assert_eq!(
        (status, &node["status"]),
        (StatusCode::OK, &"suspended".into())
    );
    let told = bench.activity(&format!("target={WEB}")).await;
    assert_eq!(told.len(), 1, "{told:?}");
    let record = &told[0];
    for (name, expected) in [
        ("user", "admin"),
        ("action", "node.suspend"),
        ("kind", "node"),
        ("name", "web-1"),
        ("group", "default"),
        ("from", "192.0.2.7"),
        ("reason", "disk is replaced"),
    ] {
        assert_eq!(record[name], expected, "{name}");
    }
    assert_eq!(record["before"]["state"], "active");
    assert_eq!(record["after"]["state"], "suspended");
    assert!(
        record["by"].as_str().unwrap().starts_with("token "),
        "{record}"
    );
    let id = record["id"].as_str().unwrap();
    let (status, one) = bench
        .as_admin(Method::GET, &format!("/api/v1/activity/{id}"), "")
        .await;
    assert_eq!((status, &one), (StatusCode::OK, record));
    for path in [
        "/activity".to_owned(),
        format!("/activity/{id}"),
        format!("/activity?target={WEB}&kind=node"),
    ] {
        let (status, page) = bench.page(&path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(
            page.contains("suspended") && page.contains("disk is replaced"),
            "{path}: {page}"
        );
    }
}

#[tokio::test]
async fn records_are_found_and_gone_through() {
    let bench = bench().await;
    for name in ["one", "two", "three"] {
        let body = format!(r#"{{"kind":"api","role":"viewer","label":"{name}"}}"#);
        let (status, _) = bench.as_admin(Method::POST, "/api/v1/tokens", &body).await;
        assert_eq!(status, StatusCode::CREATED);
    }
    for (query, expected) in [
        ("action=token.create&q=TWO", 1),
        ("kind=token&who=admin&q=label-of-nobody", 0),
        ("who=nobody", 0),
        ("from=2020-01-01&to=2020-12-31", 0),
        ("from=2020-01-01&kind=token&q=three", 1),
    ] {
        assert_eq!(bench.activity(query).await.len(), expected, "{query}");
    }
    let mut path = "/api/v1/activity?action=token.create&limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let (_, page) = bench.as_admin(Method::GET, &path, "").await;
        let items = page["items"].as_array().unwrap();
        seen.extend(
            items
                .iter()
                .map(|it| it["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/api/v1/activity?action=token.create&limit=2&cursor={next}");
    }
    assert_eq!(seen[..3], ["three", "two", "one"]);
    for refused in ["from=yesterday", "to=2026-13-01", "limit=0", "format=xml"] {
        let (status, _) = bench
            .as_admin(Method::GET, &format!("/api/v1/activity?{refused}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    }
}

#[tokio::test]
async fn an_export_is_the_whole_log_and_stands_in_it() {
    let bench = bench().await;
    let many = 2_300;
    bench
        .app
        .store
        .write(move |tx| {
            Box::pin(async move {
                let who = Person::local("test");
                for number in 0..many {
                    let id = number.to_string();
                    let doing = crate::activity::Doing {
                        who: &who,
                        at: crate::clock::now(),
                        action: "test.fill",
                        target: crate::activity::Target::new("test", &id, ""),
                        before: Value::Null,
                        after: Value::Null,
                        reason: None,
                    };
                    crate::activity::record(tx, &doing).await?;
                }
                Ok(())
            })
        })
        .await
        .unwrap();
    let bearer = format!("Bearer {}", bench.admin);
    let headers = [("authorization", bearer.as_str())];
    let path = "/api/v1/activity?format=ndjson";
    let answer = bench.ask(Method::GET, path, &headers, "").await;
    assert_eq!(
        answer.headers()[header::CONTENT_DISPOSITION],
        "attachment; filename=\"activity.ndjson\""
    );
    assert_eq!(
        answer.headers()[header::CONTENT_TYPE],
        "application/x-ndjson"
    );
    let lines: Vec<Value> = text(answer)
        .await
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let filled: Vec<&str> = lines
        .iter()
        .filter(|it| it["action"] == "test.fill")
        .map(|it| it["target"].as_str().unwrap())
        .collect();
    let expected: Vec<String> = (0..many).map(|number| number.to_string()).collect();
    assert_eq!(filled, expected, "all of them, oldest first");
    assert_eq!(lines.last().unwrap()["action"], "activity.export");
}

#[tokio::test]
async fn who_reaches_some_nodes_reads_of_those_and_of_oneself() {
    let bench = bench().await;
    bench.add_node_in(WEB, "web-1", "web").await;
    bench
        .add_node_in("00000000000000000000000000000002", "db-1", "db")
        .await;
    let limited = bench.token("ann", Role::Operator, &["web"]).await;
    for node in [WEB, "00000000000000000000000000000002"] {
        let path = format!("/api/v1/nodes/{node}/rescan");
        let (status, _) = bench.as_admin(Method::POST, &path, "").await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    let body = r#"{"kind":"api","role":"viewer","label":"of ann"}"#;
    bench
        .with_token(&limited, Method::POST, "/api/v1/tokens", body)
        .await;
    let (_, read) = bench
        .with_token(&limited, Method::GET, "/api/v1/activity", "")
        .await;
    let read = read["items"].as_array().unwrap().clone();
    let names: Vec<&str> = read.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["of ann", "web-1"], "{read:?}");
    let all = bench.activity("action=node.rescan").await;
    let beyond = all.iter().find(|it| it["name"] == "db-1").unwrap();
    let path = format!("/api/v1/activity/{}", beyond["id"].as_str().unwrap());
    let (status, _) = bench.with_token(&limited, Method::GET, &path, "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nothing_in_it_can_be_changed() {
    let bench = bench().await;
    assert!(!bench.activity("").await.is_empty());
    for sql in ["UPDATE actions SET user = 'x'", "DELETE FROM actions"] {
        let done = bench
            .app
            .store
            .write(move |tx| {
                Box::pin(async move {
                    sqlx::query(sql).execute(&mut tx.connection).await?;
                    Ok(())
                })
            })
            .await;
        assert!(done.is_err(), "{sql}");
    }
}
