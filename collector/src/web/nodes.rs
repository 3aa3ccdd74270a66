//! `/nodes`: the fleet as one calm table.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::{address, overview, shell, state, text};
use crate::access::Person;
use crate::api::Asked;
use crate::api::reads::{self, NodeFacts};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::store::NodeRow;

/// Rows of a page: read at a glance, answered in a few milliseconds.
const ROWS: usize = 100;

/// The filters, as they stand in the address.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    q: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    sort: String,
    page: Option<usize>,
}

impl Filter {
    fn with(&self, sort: &str, page: usize) -> String {
        let page = if page > 1 {
            page.to_string()
        } else {
            String::new()
        };
        address(
            "/nodes",
            &[
                ("q", &self.q),
                ("status", &self.status),
                ("group", &self.group),
                ("sort", sort),
                ("page", &page),
            ],
        )
    }

    fn fits(&self, row: &NodeRow, status: &str, found: &std::collections::HashSet<String>) -> bool {
        let text = self.q.trim().to_lowercase();
        let named = text.is_empty()
            || row.name.to_lowercase().contains(&text)
            || row.id.starts_with(&text)
            || found.contains(&row.id);
        named
            && (self.group.is_empty() || row.group == self.group)
            && if self.status.is_empty() {
                status != "retired"
            } else {
                status == self.status
            }
    }
}

/// `GET /nodes`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(filter): Asked<Filter>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let all = reads::all_nodes(&people.app, &person.reach).await?;
    let groups: std::collections::BTreeSet<String> =
        all.iter().map(|(row, _)| row.group.clone()).collect();
    let found = by_violation(&people, filter.q.trim()).await?;
    let total = all.len();
    let mut fitting: Vec<(NodeRow, String)> = all
        .into_iter()
        .filter(|(row, status)| filter.fits(row, status, &found))
        .collect();
    sort(&mut fitting, &filter.sort);
    let pages = fitting.len().div_ceil(ROWS).max(1);
    let page = filter.page.unwrap_or(1).clamp(1, pages);
    let ids: Vec<String> = fitting
        .iter()
        .skip((page - 1) * ROWS)
        .take(ROWS)
        .map(|(row, _)| row.id.clone())
        .collect();
    let nodes = reads::nodes_by_id(&people.app, &ids).await?;
    let here = filter.with(&filter.sort, page);
    let list = html! {
        h1 { (first_line(&filter, &fitting, total)) }
        (form(&filter, &groups))
        @if nodes.is_empty() { (empty(total)) } @else {
            (table(&filter, &nodes, now))
            @if pages > 1 {
                p.pages {
                    @if page > 1 { a href=(filter.with(&filter.sort, page - 1)) rel="prev" { "Before" } }
                    span { "Page " (page) " of " (pages) }
                    @if page < pages { a href=(filter.with(&filter.sort, page + 1)) rel="next" { "Next" } }
                }
            }
        }
    };
    Ok(shell::page(
        &person,
        "/nodes",
        "Nodes",
        &shell::live("nodes", &here, &["verdict", "violation", "node"], &list),
    ))
}

/// Nodes on which a path or a user fits the search.
async fn by_violation(
    people: &People,
    text: &str,
) -> Result<std::collections::HashSet<String>, ProblemResponse> {
    if text.is_empty() {
        return Ok(std::collections::HashSet::new());
    }
    let nodes: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT node FROM violations WHERE resolved IS NULL AND (instr(path, ?1) > 0 OR json_extract(actor, '$.user') = ?1) \
         UNION SELECT DISTINCT node FROM touched WHERE reviewed IS NULL AND (instr(path, ?1) > 0 OR json_extract(actor, '$.user') = ?1) LIMIT 10000",
    )
    .bind(text)
    .fetch_all(people.app.store.read_pool())
    .await?;
    Ok(nodes.into_iter().collect())
}

fn sort(nodes: &mut [(NodeRow, String)], by: &str) {
    let name = |row: &NodeRow| (row.name.clone(), row.id.clone());
    match by {
        "name" => nodes.sort_by_cached_key(|(row, _)| name(row)),
        "group" => nodes.sort_by_cached_key(|(row, _)| (row.group.clone(), name(row))),
        "seen" => nodes.sort_by_cached_key(|(row, _)| (row.last_received, name(row))),
        _ => nodes.sort_by_cached_key(|(row, status)| (state::rank(status), name(row))),
    }
}

fn first_line(filter: &Filter, fitting: &[(NodeRow, String)], total: usize) -> Markup {
    let count = u64::try_from(fitting.len()).unwrap_or(0);
    let filtered =
        !(filter.q.trim().is_empty() && filter.status.is_empty() && filter.group.is_empty());
    if total == 0 {
        return html! { "No nodes yet." };
    }
    if filtered {
        return html! {
            (text::counted(count, "node", "nodes")) " of " (text::count(u64::try_from(total).unwrap_or(0)))
            @if !filter.status.is_empty() { (if count == 1 { " is " } else { " are " }) (filter.status.replace('-', " ")) } @else { (if count == 1 { " fits" } else { " fit" }) }
            "."
        };
    }
    let well = fitting
        .iter()
        .filter(|(_, status)| status == "pristine")
        .count();
    if well == fitting.len() {
        html! { (text::counted(count, "node", "nodes")) ", " (if count == 1 { "and it is" } else { "all of them" }) " pristine." }
    } else {
        html! { (text::counted(count, "node", "nodes")) ", " (well) " of them pristine." }
    }
}

fn form(filter: &Filter, groups: &std::collections::BTreeSet<String>) -> Markup {
    html! {
        form.filters method="get" action="/nodes" {
            label { "Name, id, path or user" input type="search" name="q" value=(filter.q) maxlength="200"; }
            label { "State" select name="status" {
                option value="" { "any" }
                @for word in state::ORDER { option value=(word) selected[filter.status == word] { (word.replace('-', " ")) } }
                option value="retired" selected[filter.status == "retired"] { "retired" }
            } }
            label { "Group" select name="group" {
                option value="" { "any" }
                @for group in groups { option value=(group) selected[filter.group == *group] { (text::plain(group)) } }
            } }
            @if !filter.sort.is_empty() { input type="hidden" name="sort" value=(filter.sort); }
            button.act type="submit" { "Filter" }
            @if !(filter.q.is_empty() && filter.status.is_empty() && filter.group.is_empty()) { a.act href="/nodes" { "All" } }
        }
    }
}

fn empty(total: usize) -> Markup {
    html! {
        div.empty {
            @if total == 0 {
                p { b { "Make a join token" } ", then enrol a machine with it:" }
                pre { "pristine token create --join\npristine-agent enroll --token TOKEN" }
            } @else { p { "No node fits these filters. " a href="/nodes" { "Show all" } } }
        }
    }
}

fn head(filter: &Filter, key: &str, name: &str) -> Markup {
    let now = filter.sort == key;
    html! { th scope="col" aria-sort=[now.then_some("ascending")] { a href=(filter.with(key, 1)) { (name) } } }
}

fn table(filter: &Filter, nodes: &[NodeFacts], now: Timestamp) -> Markup {
    html! {
        table.nodes {
            thead { tr {
                (head(filter, "", "State"))
                (head(filter, "name", "Name"))
                (head(filter, "group", "Group"))
                th scope="col" { "Image" }
                th scope="col" { "Commit" }
                (head(filter, "seen", "Attested"))
                th.num scope="col" { "Violations" }
                th scope="col" { "Assurance" }
            } }
            tbody { @for node in nodes { (row(node, now)) } }
        }
    }
}

fn row(node: &NodeFacts, now: Timestamp) -> Markup {
    let row = &node.row;
    html! {
        tr data-row={ (row.id) "-" (node.status) } id={ "n" (row.id) } {
            td data-label="State" { div.cell {
                (state::state(&node.status))
                @if node.excepted > 0 { " " (state::tag(&format!("{} excepted", node.excepted), "quiet")) }
                @if node.unreviewed() > 0 { " " (state::tag(&format!("{} unreviewed", node.unreviewed()), "warn")) }
            } }
            td data-label="Name" { div.cell { a href={ "/nodes/" (row.id) } { b { (text::plain(&row.name)) } } } }
            td data-label="Group" { div.cell { (text::plain(&row.group)) } }
            td data-label="Image" { div.cell {
                @match &node.image {
                    Some(image) => { (text::plain(&image.name)) " " span.soft { (text::plain(&image.version)) } }
                    None => span.none { "none assigned" },
                }
            } }
            td data-label="Commit" { div.cell {
                @match node.image.as_ref().filter(|image| !image.commit.is_empty()) {
                    Some(image) => span.digest title=(image.commit) { (text::plain(&image.commit.chars().take(12).collect::<String>())) },
                    None => span.none { "not known" },
                }
            } }
            td data-label="Attested" { div.cell { span.seen { (overview::signed_and_read(node, now)) } } }
            td.num data-label="Violations" { div.cell {
                @if node.violations == 0 { span.none { "0" } }
                @else { a href=(address("/violations", &[("node", &row.id)])) { (text::count(node.violations)) } }
            } }
            td data-label="Assurance" { div.cell { (row.assurance) } }
        }
    }
}
