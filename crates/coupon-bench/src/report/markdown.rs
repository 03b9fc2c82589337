//! The report in Markdown, for an issue or a document.

use std::fmt::Write as _;

use super::Named;
use super::verdict::sentences;
use crate::experiments::matrix::{COLUMNS, Matrix};

pub fn markdown(reports: &[Named]) -> anyhow::Result<String> {
    let mut text = String::from("# Two ways to issue coupons\n");
    for Named { name, matrix } in reports {
        if reports.len() > 1 {
            write!(text, "\n# {name}\n")?;
        }
        writeln!(text, "\n{}", setting(matrix))?;
        for sentence in sentences(matrix)? {
            write!(text, "\n- {sentence}")?;
        }
        for ((claims, coupons), cells) in matrix.by_size() {
            write!(text, "\n\n## {claims} claims for {coupons} coupons\n\n| |")?;
            COLUMNS.iter().try_for_each(|column| write!(text, " {column} |"))?;
            write!(text, "\n|---|{}", "---|".repeat(COLUMNS.len()))?;
            for cell in cells {
                write!(text, "\n| {} |", cell.contender)?;
                cell.row()?.iter().try_for_each(|figure| write!(text, " {figure} |"))?;
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// A sentence about what a report was measured on.
pub fn setting(matrix: &Matrix) -> String {
    let Matrix { revision, clients, servers, machine, made_at, .. } = matrix;
    format!(
        "{} {revision}, {clients} clients; {} cores ({}), {} GiB, {}; MySQL {}, Redis {}, RabbitMQ {}; servers, services \
         and load on the same machine.",
        made_at.date(),
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.system,
        servers.mysql,
        servers.redis,
        servers.rabbitmq,
    )
}
