"""Flame graphs: one HTML file that needs nothing else, wide where the time goes."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from typing import Any

from mlip.core.files import write_text_atomically

LEAST = 1e-4
"""Share of the whole below which a box is left out: it would be thinner than a hair at any zoom of use."""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>__TITLE__</title>
<style>
body { font: 13px sans-serif; margin: 12px; color: #222; }
#bar { margin: 8px 0; display: flex; gap: 12px; align-items: center; }
#text { white-space: pre; overflow: hidden; text-overflow: ellipsis; }
#graph { position: relative; }
#graph div { position: absolute; height: 17px; line-height: 17px; overflow: hidden; white-space: nowrap;
  box-sizing: border-box; border-right: 1px solid #fff; padding-left: 3px; font-size: 11px; cursor: pointer; }
#graph div.other { opacity: 0.3; }
</style></head><body>
<b>__TITLE__</b>
<div>Width is time, with what was called below its caller. Click a box to widen it, the top one to go back.</div>
<div id="bar"><input id="find" placeholder="find"><span id="text"></span></div>
<div id="graph"></div>
<script>
const tree = __TREE__, row = 18, graph = document.getElementById("graph"), text = document.getElementById("text");
const find = document.getElementById("find");
let shown = tree;
(function link(node, parent) { node.parent = parent; node.children.forEach(c => link(c, node)); })(tree, null);
function colour(name) {
  let h = 0;
  for (const c of name.split(/[.:|]/)[0]) h = (h * 31 + c.charCodeAt(0)) % 360;
  return `hsl(${/backward/.test(name) ? 200 + h % 60 : 10 + h % 50}, 75%, ${68 + h % 12}%)`;
}
function label(node) {
  const share = 100 * node.ms / tree.ms;
  return `${node.name}: ${node.ms.toPrecision(3)} ms, ${share.toPrecision(3)} %; itself ${node.self.toPrecision(3)} ms`;
}
function draw() {
  graph.replaceChildren();
  const word = find.value.toLowerCase(), width = graph.clientWidth, path = [];
  let deepest = 0, found = 0;
  for (let node = shown; node; node = node.parent) path.unshift(node);
  function box(node, x, w, depth) {
    if (w < 0.5) return;
    const div = document.createElement("div");
    div.style.left = x + "px"; div.style.top = depth * row + "px"; div.style.width = w + "px";
    div.style.background = colour(node.name);
    if (w > 25) div.textContent = node.name;
    div.title = label(node);
    if (word && !node.name.toLowerCase().includes(word)) div.className = "other";
    div.onmouseenter = () => { text.textContent = label(node); };
    div.onclick = () => { shown = node; draw(); };
    graph.appendChild(div);
    deepest = Math.max(deepest, depth);
  }
  function below(node, x, w, depth) {
    box(node, x, w, depth);
    let at = x;
    for (const child of node.children) {
      const part = w * child.ms / node.ms;
      if (part >= 0.5) below(child, at, part, depth + 1);
      at += part;
    }
  }
  (function sum(node) {
    if (word && node.name.toLowerCase().includes(word)) { found += node.ms; return; }
    node.children.forEach(sum);
  })(tree);
  path.slice(0, -1).forEach((node, depth) => box(node, 0, width, depth));
  below(shown, 0, width, path.length - 1);
  graph.style.height = (deepest + 2) * row + "px";
  text.textContent = word ? `${found.toPrecision(3)} ms, ${(100 * found / tree.ms).toPrecision(3)} % found`
    : label(shown);
}
find.oninput = draw;
window.onresize = draw;
draw();
</script></body></html>
"""


def write_flame_graph(path: str | os.PathLike[str], stacks: Mapping[tuple[str, ...], float], title: str) -> None:
    """Write an interactive flame graph as a single HTML file.

    Args:
        path: of the file, written whole or not at all.
        stacks: milliseconds that each stack of labels took itself, outermost label first.
        title: above the graph.

    Raises:
        MlipError: the file cannot be written.
    """
    tree = _tree(stacks)
    # "</" would end the script, wherever it stands.
    text = json.dumps(tree, ensure_ascii=False).replace("</", "<\\/")
    write_text_atomically(path, _PAGE.replace("__TITLE__", html.escape(title)).replace("__TREE__", text))


def _tree(stacks: Mapping[tuple[str, ...], float]) -> dict[str, Any]:
    """Return nested boxes with the time of each, what is below it included, in the order of the stacks."""
    root: dict[str, Any] = {"name": "all", "ms": 0.0, "self": 0.0, "below": {}}
    for stack, ms in stacks.items():
        node = root
        node["ms"] += ms
        for name in stack:
            node = node["below"].setdefault(name, {"name": name, "ms": 0.0, "self": 0.0, "below": {}})
            node["ms"] += ms
        node["self"] += ms
    return _listed(root, LEAST * root["ms"])


def _listed(node: dict[str, Any], least: float) -> dict[str, Any]:
    children = [_listed(child, least) for child in node["below"].values() if child["ms"] >= least]
    return {"name": node["name"], "ms": round(node["ms"], 6), "self": round(node["self"], 6), "children": children}
