//! What becomes of a module's node on its way into the graph: as dora 1.1 rewrites it.

use super::file::{Header, lexical};
use crate::dora::{self, Upstream};
use crate::fault::{Fault, Report};
use crate::nearest::nearest;
use crate::yaml::{Data, Yaml};
use std::collections::BTreeSet;
use std::path::Path;

/// One use of a module.
pub(super) struct Use<'a> {
    /// The node that stands for it, with what it hands on.
    pub(super) node: &'a Yaml,
    /// Its id, a dot included.
    pub(super) scope: &'a str,
    pub(super) header: &'a Header,
    /// The ids of its nodes as its file gives them.
    pub(super) ids: BTreeSet<String>,
    /// The folder of its file, from the graph's.
    pub(super) dir: &'a Path,
    /// A module is checked on its own: the graph's folder is not known, so none is out of bounds.
    pub(super) alone: bool,
}

impl Use<'_> {
    /// Puts a node of the module into the graph's terms.
    pub(super) fn rewrite(&self, node: &mut Yaml, report: &mut Report) {
        if let Some(id) = node.get_mut("id")
            && let Some(name) = id.text()
        {
            *id = Yaml::plain(id.span, format!("{}{name}", self.scope));
        }
        if let Some(inputs) = node.get_mut("inputs")
            && let Data::Map(entries) = &mut inputs.data
        {
            entries.retain_mut(|(name, value)| self.rewrite_input(name, value, report));
        }
        self.rewrite_path(node, report);
        if node.get("deploy").is_none_or(|deploy| deploy.kind() == "nothing")
            && let Some(deploy) = self.node.get("deploy")
        {
            node.set("deploy", deploy.clone());
        }
        if let Some(Data::Map(given)) = self.node.get("env").map(|env| &env.data) {
            for (key, value) in given {
                add_variable(node, key, value, false);
            }
        }
        self.put_params(node, report);
    }

    /// There is no graph around the module.
    fn is_all(&self) -> bool {
        self.scope.is_empty()
    }

    /// False where the input goes: an optional one that nothing is connected to.
    fn rewrite_input(&self, name: &Yaml, value: &mut Yaml, report: &mut Report) -> bool {
        let Some((source, text)) = source_of(value).and_then(|source| Some((source.span, source.text()?.to_owned())))
        else {
            return true;
        };
        match dora::parse_upstream(&text) {
            Ok(Upstream::Output { node, output }) if node == dora::MODULE => {
                if let Some(bound) = self.node.get("inputs").and_then(|inputs| inputs.get(&output)) {
                    *value = bind(value, bound);
                } else if !self.header.all_inputs().any(|input| input == output) {
                    let near = nearest(&output, self.header.all_inputs());
                    let names: Vec<&str> = self.header.all_inputs().collect();
                    let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    let message = format!("the module has no input '{output}'; there are: {has}");
                    let name = name.text().unwrap_or("input");
                    let fix = near.map(|near| format!("{name}: {}/{near}", dora::MODULE));
                    report.push(Fault::error(source, message).fix_with(fix));
                } else if !self.is_all() && self.header.optional.iter().any(|input| input.value == output) {
                    return false;
                }
            }
            Ok(Upstream::Output { node, output }) if self.ids.contains(&node) => {
                set_source(value, format!("{}{node}/{output}", self.scope));
            }
            Ok(Upstream::Logs) => {
                // dora/logs/LEVEL/NODE
                if let Some((level, node)) = text.rsplit_once('/')
                    && level.matches('/').count() == 2
                    && self.ids.contains(node)
                {
                    set_source(value, format!("{level}/{}{node}", self.scope));
                }
            }
            _ => {}
        }
        true
    }

    /// A program's path counts from the module's folder; dora refuses one that leads out of the graph's.
    fn rewrite_path(&self, node: &mut Yaml, report: &mut Report) {
        if self.is_all() || node.get("git").is_some() {
            return;
        }
        let Some(path) = node.get_mut("path") else { return };
        let Some(text) = path.text().map(str::to_owned) else { return };
        if matches!(text.as_str(), "dynamic" | "shell") || text.contains("://") || Path::new(&text).is_absolute() {
            return;
        }
        let there = match lexical(self.dir, &text) {
            Some(there) => there,
            None if self.alone => self.dir.join(&text),
            None => {
                let message =
                    format!("the path '{text}' leads out of the graph's folder, which dora refuses in a module");
                let fix = "make a link in the graph's folder that leads there (graphs/bin is one), and use that";
                report.push(Fault::error(path.span, message).fix(fix));
                self.dir.join(&text)
            }
        };
        *path = Yaml::plain(path.span, there.to_string_lossy());
    }

    /// Params go into `args`, and to every node as variables.
    fn put_params(&self, node: &mut Yaml, report: &mut Report) {
        let params = params(self.node);
        let span = node.get("args").map(|args| args.span);
        if let Some((span, text)) = span.zip(node.get("args").and_then(Yaml::text)) {
            let mut missing = Vec::new();
            let args = substitute(text, &params, &mut missing);
            for name in missing.into_iter().filter(|_| !self.is_all()) {
                let user = self.scope.trim_end_matches('.');
                let near = nearest(&name, params.iter().map(|(key, _)| key.as_str()));
                let given = near.map_or_else(String::new, |near| format!(", only '{near}'"));
                let message = format!("the param '{name}' in these args is not given by node '{user}'{given}");
                report.push(Fault::error(span, message).fix(format!("in node '{user}': params: {{ {name}: … }}")));
            }
            node.set("args", Yaml::plain(span, args));
        }
        let Some(Data::Map(given)) = self.node.get("params").map(|map| &map.data) else { return };
        for (key, value) in given {
            let (Some(name), Some(scalar)) = (key.text(), value.scalar()) else { continue };
            // dora hands it over as it is, and would expand what it reads from a file
            let text = scalar.text.replace('$', "$$");
            let key = Yaml::plain(key.span, format!("PARAM_{}", name.to_uppercase()));
            let mut value = Yaml::plain(value.span, text);
            if let Data::Scalar(scalar) = &mut value.data {
                scalar.plain = false;
            }
            add_variable(node, &key, &value, true);
        }
    }
}

/// The params that a node gives to its module.
fn params(node: &Yaml) -> Vec<(String, String)> {
    let Some(Data::Map(entries)) = node.get("params").map(|map| &map.data) else { return Vec::new() };
    let pair = |(key, value): &(Yaml, Yaml)| Some((key.text()?.to_owned(), value.scalar()?.text.clone()));
    entries.iter().filter_map(pair).collect()
}

/// Gives a node a variable; without `over` only where it has none of this name.
fn add_variable(node: &mut Yaml, key: &Yaml, value: &Yaml, over: bool) {
    let Some(name) = key.text() else { return };
    if node.get("env").is_none_or(|env| env.kind() == "nothing") {
        node.set("env", Yaml { span: key.span, data: Data::Map(Vec::new()), shared: None });
    }
    let Some(env) = node.get_mut("env") else { return };
    if let Some(there) = env.get_mut(name) {
        if over {
            *there = value.clone();
        }
    } else if let Data::Map(entries) = &mut env.data {
        entries.push((key.clone(), value.clone()));
    }
}

/// Warns of params that stand in the args of none of a module's nodes.
pub(super) fn check_params_used(node: &Yaml, inner: &[Yaml], report: &mut Report) {
    let mut named = Vec::new();
    for args in inner.iter().filter_map(|item| item.get("args")?.text()) {
        substitute(args, &[], &mut named);
    }
    let Some(Data::Map(given)) = node.get("params").map(|map| &map.data) else { return };
    for (key, _) in given {
        let Some(name) = key.text() else { continue };
        if !named.iter().any(|named| named == name || *named == name.to_lowercase()) {
            let variable = format!("PARAM_{}", name.to_uppercase());
            let message = format!(
                "no args in the module name the param '{name}': its nodes get the variable {variable}, and no more"
            );
            let fix = format!("args: … ${{_param.{name}}}; settings of Millrace nodes go into env");
            report.push(Fault::warning(key.span, message).fix(fix));
        }
    }
}

/// Puts commands before those of a node.
pub(super) fn prepend_build(node: &mut Yaml, first: Option<&Yaml>) {
    let Some((span, first)) = first.and_then(|build| Some((build.span, build.text()?))) else { return };
    // dora builds the operators of such nodes, not the nodes
    if ["operator", "operators", "ros2"].iter().any(|key| node.get(key).is_some()) {
        return;
    }
    let all = match node.get("build").and_then(Yaml::text) {
        Some(own) => format!("{first}\n{own}"),
        None => first.to_owned(),
    };
    node.set("build", Yaml::plain(span, all));
}

/// The part of an input that names its source.
pub(super) fn source_of(input: &Yaml) -> Option<&Yaml> {
    if let Data::Map(_) = input.data { input.get("source") } else { Some(input) }
}

/// Names another source, at the place of the first.
pub(super) fn set_source(input: &mut Yaml, text: String) {
    let Some(span) = source_of(input).map(|source| source.span) else { return };
    match input.data {
        Data::Map(_) => input.set("source", Yaml::plain(span, text)),
        _ => *input = Yaml::plain(span, text),
    }
}

/// An input of a module's node with what its module is connected to: the node's own options come first.
fn bind(inner: &Yaml, bound: &Yaml) -> Yaml {
    let Some(source) = source_of(bound).cloned() else { return bound.clone() };
    let options: Vec<(Yaml, Yaml)> = dora::INPUT_KEYS
        .iter()
        .filter(|(key, _)| *key != "source")
        .filter_map(|(key, _)| {
            let is_given = |value: &&Yaml| value.kind() != "nothing";
            let value = inner.get(key).filter(is_given).or(bound.get(key).filter(is_given))?;
            Some((Yaml::plain(value.span, *key), value.clone()))
        })
        .collect();
    if options.is_empty() {
        return source;
    }
    let mut entries = vec![(Yaml::plain(source.span, "source"), source)];
    entries.extend(options);
    Yaml { span: inner.span, data: Data::Map(entries), shared: None }
}

/// Replaces `${_param.name}` and `$PARAM_NAME` in one pass, and names those that nobody gives.
fn substitute(text: &str, params: &[(String, String)], missing: &mut Vec<String>) -> String {
    const BRACED: &str = "${_param.";
    const PLAIN: &str = "$PARAM_";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(index) = rest.find('$') {
        out.push_str(&rest[..index]);
        rest = &rest[index..];
        let braced = rest.strip_prefix(BRACED).and_then(|after| Some((after, after.find('}')?)));
        let (name, whole, value) = if let Some((after, end)) = braced {
            let name = &after[..end];
            let value = params.iter().find(|(key, _)| key == name);
            (name.to_owned(), BRACED.len() + end + 1, value)
        } else if let Some(after) = rest.strip_prefix(PLAIN) {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            let value = params.iter().find(|(key, _)| key.to_uppercase() == after[..end]);
            (after[..end].to_lowercase(), PLAIN.len() + end, value)
        } else {
            out.push('$');
            rest = &rest[1..];
            continue;
        };
        match value {
            Some((_, value)) => out.push_str(value),
            None => {
                missing.push(name);
                out.push_str(&rest[..whole]);
            }
        }
        rest = &rest[whole..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right-hand sides are what `dora expand` 1.1.0 printed.
    #[test]
    fn params_are_put_in_as_dora_does() {
        let params = [("x", "hello"), ("n", "1"), ("speed", "$PARAM_N")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut missing = Vec::new();
        for (text, expected) in [
            ("dec ${_param.x} $PARAM_X $PARAM_N ${_param.zz}", "dec hello hello 1 ${_param.zz}"),
            ("$PARAM_SPEED_LIMIT ${_param.speed}", "$PARAM_SPEED_LIMIT $PARAM_N"),
            ("${_param.X} 5$ ${_param.x", "${_param.X} 5$ ${_param.x"),
            ("é$PARAM_X-é", "éhello-é"),
        ] {
            assert_eq!(substitute(text, &params, &mut missing), expected);
        }
        assert_eq!(missing, ["zz", "speed_limit", "X"]);
    }
}
