//! Sessions from a statement into the store.

use attestation::statement::{Attestation, Session};
use attestation::time::Timestamp;
use sqlx::Row as _;

use super::{COMMANDS, KEPT, LoginView};
use crate::events::Event;
use crate::store::nodes::to_sql;
use crate::store::{NodeRow, StoreError, Writing};

/// Takes in what a statement tells of sessions. A new one is told at once: as an event and in the journal.
pub async fn record(
    tx: &mut Writing,
    node: &NodeRow,
    said: &Attestation,
    received: Timestamp,
) -> Result<(), StoreError> {
    for session in &said.sessions {
        let (login, new) = put(tx, node, said, session, received).await?;
        commands(tx, &login, session).await?;
        if new {
            forget_oldest(tx, &node.id).await?;
            tx.journal_changed();
            tx.event(Event::Session(view(node, said, session, login, received)));
        }
    }
    Ok(())
}

/// The session's id, and whether nobody told of it before.
async fn put(
    tx: &mut Writing,
    node: &NodeRow,
    said: &Attestation,
    session: &Session,
    received: Timestamp,
) -> Result<(String, bool), StoreError> {
    let id = uuid::Uuid::now_v7().to_string();
    let row = sqlx::query(
        "INSERT INTO logins (id, node, boot, session, auid, user, origin, tty, started, ended, dropped, told, sequence) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
         ON CONFLICT (node, boot, session) DO UPDATE SET user = coalesce(?6, user), origin = coalesce(?7, origin), \
         tty = coalesce(?8, tty), started = min(started, ?9), ended = coalesce(?10, ended), dropped = dropped + ?11, sequence = ?13 \
         RETURNING id",
    )
    .bind(&id)
    .bind(&node.id)
    .bind(&said.boot)
    .bind(i64::from(session.session))
    .bind(i64::from(session.auid))
    .bind(&session.user)
    .bind(&session.from)
    .bind(&session.tty)
    .bind(session.started.as_micros())
    .bind(session.ended.map(Timestamp::as_micros))
    .bind(to_sql(session.dropped))
    .bind(received.as_micros())
    .bind(to_sql(said.sequence))
    .fetch_one(&mut tx.connection)
    .await?;
    let known: String = row.try_get("id")?;
    let new = known == id;
    Ok((known, new))
}

async fn commands(tx: &mut Writing, login: &str, session: &Session) -> Result<(), StoreError> {
    if session.commands.is_empty() {
        return Ok(());
    }
    let mut kept: i64 = sqlx::query_scalar("SELECT commands FROM logins WHERE id = ?")
        .bind(login)
        .fetch_one(&mut tx.connection)
        .await?;
    let mut dropped = 0_i64;
    for command in &session.commands {
        // One that is told again has ended meanwhile.
        let told = sqlx::query("UPDATE login_commands SET exit = coalesce(?, exit), arguments = coalesce(?, arguments) WHERE login = ? AND at = ? AND pid = ? AND exe = ?")
            .bind(command.exit.map(i64::from))
            .bind(&command.arguments)
            .bind(login)
            .bind(command.at.as_micros())
            .bind(i64::from(command.pid))
            .bind(&command.exe)
            .execute(&mut tx.connection)
            .await?;
        if told.rows_affected() > 0 {
            continue;
        }
        if kept >= COMMANDS {
            dropped += 1;
            continue;
        }
        sqlx::query("INSERT INTO login_commands (login, at, pid, exe, arguments, exit) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(login)
            .bind(command.at.as_micros())
            .bind(i64::from(command.pid))
            .bind(&command.exe)
            .bind(&command.arguments)
            .bind(command.exit.map(i64::from))
            .execute(&mut tx.connection)
            .await?;
        kept += 1;
    }
    sqlx::query("UPDATE logins SET commands = ?, dropped = dropped + ? WHERE id = ?")
        .bind(kept)
        .bind(dropped)
        .bind(login)
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

async fn forget_oldest(tx: &mut Writing, node: &str) -> Result<(), StoreError> {
    let old: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM logins WHERE node = ? ORDER BY id DESC LIMIT -1 OFFSET ?",
    )
    .bind(node)
    .bind(KEPT)
    .fetch_all(&mut tx.connection)
    .await?;
    for id in old {
        sqlx::query("DELETE FROM login_commands WHERE login = ?")
            .bind(&id)
            .execute(&mut tx.connection)
            .await?;
        sqlx::query("DELETE FROM logins WHERE id = ?")
            .bind(&id)
            .execute(&mut tx.connection)
            .await?;
    }
    Ok(())
}

fn view(
    node: &NodeRow,
    said: &Attestation,
    session: &Session,
    id: String,
    received: Timestamp,
) -> LoginView {
    LoginView {
        id,
        node: node.id.clone(),
        node_name: node.name.clone(),
        boot: said.boot.clone(),
        session: session.session,
        auid: session.auid,
        user: session.user.clone(),
        from: session.from.clone(),
        tty: session.tty.clone(),
        started: session.started,
        ended: session.ended,
        commands: session.commands.len() as u64,
        dropped: session.dropped,
        told: received,
    }
}
