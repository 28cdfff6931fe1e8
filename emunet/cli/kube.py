"""Objects without kubectl: `emunet apply`, `get`, `delete`, `scale`, and `kubeconfig` for those who have it.

They speak the Kubernetes API over the lab's own socket, so they need neither a port nor a token.

Rule of this file: it prints what the API answers; what a kind is called comes from the registry of kinds.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import quote

import click

from emunet.cli.options import lab_option, print_json, the_lab
from emunet.cli.progress import bar
from emunet.daemon.client import LabClient, LabError
from emunet.daemon.kube import client as kube_client

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_APPLY = "application/apply-patch+yaml"

_FIRST = ("Namespace", "CustomResourceDefinition")
"""The kinds without which objects of others cannot be."""

namespace_option = click.option(
    "-n", "--namespace", metavar="NAME", default="default", help="The namespace; `default` where none is given."
)


def _kind(lab: LabClient, word: str) -> Any:
    from emunet.cluster.kinds import Registry

    registry = Registry()
    kind = registry.find(word) or _with_custom(lab, registry).find(word)
    if kind is None:
        raise LabError(f"the lab knows no kind {word}: `emunet get --kinds` lists those that it knows")
    return kind


def _with_custom(lab: LabClient, registry: Any) -> Any:
    """The registry, with the kinds that CustomResourceDefinitions have brought into the lab."""
    from emunet.cluster.custom import kind_of

    _, found = _ask(lab, "GET", "apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    for kind in map(kind_of, found["items"]):
        if kind is not None:
            registry.add(kind)
    return registry


def _path(kind: Any, namespace: str, name: str = "") -> str:
    root = "apis" if kind.group else "api"
    space = f"namespaces/{quote(namespace)}/" if kind.namespaced and namespace else ""
    return f"{root}/{kind.api_version}/{space}{kind.plural}" + (f"/{quote(name)}" if name else "")


def _ask(lab: LabClient, method: str, path: str, body: Any = None, **how: str) -> Any:
    """The answer of the API; its warnings go to standard error, its refusals are LabErrors."""
    code, answer, warnings = kube_client.ask(lab, method, path, body, **how)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if code >= 400:
        raise LabError(answer.get("message", f"the lab answers {code}"))
    return code, answer


def _split(lab: LabClient, words: tuple[str, ...]) -> list[tuple[Any, str]]:
    """`deploy web`, `deploy/web`, `pods a b` -> kinds and names."""
    if not words:
        raise click.UsageError("say what: a kind and a name, as in `deploy web` or `deploy/web`")
    if all("/" in word for word in words):
        return [(_kind(lab, word.partition("/")[0]), word.partition("/")[2]) for word in words]
    return [(_kind(lab, words[0]), name) for name in words[1:]]


@click.command()
@lab_option
@click.option("-w", "--write", metavar="FILE", help="Write it there (for its owner's eyes only) and say how to use it.")
def kubeconfig(lab: str | None, write: str | None) -> None:
    """Print the file that points kubectl to the lab.

    \b
    emunet kubeconfig -w lab.kubeconfig
    export KUBECONFIG=$PWD/lab.kubeconfig
    kubectl get pods -A
    """  # noqa: D301 - click knows the character by this escape
    text = the_lab(lab).get("kubeconfig")["kubeconfig"]
    if write is None:
        print(text, end="")
        return
    try:
        descriptor = os.open(write, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise LabError(f"cannot write {write}: {error.strerror}") from None
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
    print(f"export KUBECONFIG={os.path.abspath(write)}")


@click.command()
@lab_option
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="Objects, one or many.")
@namespace_option
def apply(lab: str | None, files: tuple[str, ...], namespace: str) -> None:
    """Make the objects of files, or change those that are there. Where one of them has an error, nothing is changed."""
    from emunet.cluster.custom import kind_of
    from emunet.cluster.refused import problems_of
    from emunet.cluster.status import StatusError

    client = the_lab(lab)
    with bar("reading files"):
        documents = _documents(client, files)
    own = {str((one.data.get("metadata") or {}).get("name")) for kind, one in documents if kind.name == "Namespace"}
    brought = {kind_of(one.data) for kind, one in documents if kind.name == "CustomResourceDefinition"}
    wanted: list[tuple[Any, str, str, Any]] = []
    faults: list[str] = []
    with bar("checking all objects", len(documents)) as shown:
        for number, (kind, document) in enumerate(documents):
            shown.to(number)
            metadata = document.data.get("metadata") or {}
            space, name = metadata.get("namespace") or namespace, str(metadata.get("name", ""))
            if not name:
                faults.append(str(document.problem(("metadata",), f"a {kind.name} without a name cannot be applied")))
                continue
            wanted.append((kind, space, name, document))
            code, answer, _ = _apply(client, kind, space, name, document, "&dryRun=All")
            if code == 404 and kind in brought:
                continue  # nothing is checked of what is only kept
            if answer.get("reason") == "NotFound" and space in own:  # its namespace comes out of the same file
                code, answer = _try_elsewhere(client, kind, document.data)
            if code >= 400:
                faults += map(str, problems_of(document, StatusError.read(answer)))
    if faults:
        raise LabError("\n".join(faults))
    for kind, space, name, document in wanted:
        old, before, _ = kube_client.ask(client, "GET", _path(kind, space, name))
        code, now, warnings = _apply(client, kind, space, name, document)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if code >= 400:
            raise LabError("\n".join(map(str, problems_of(document, StatusError.read(now)))))
        same = old < 400 and before["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]
        told = "created" if old >= 400 else "unchanged" if same else "configured"
        print(f"{kind.singular}{'.' + kind.group if kind.group else ''}/{name} {told}")


def _apply(client: LabClient, kind: Any, space: str, name: str, document: Any, query: str = "") -> Any:
    path = f"{_path(kind, space, name)}?fieldManager=emunet&fieldValidation=Strict{query}"
    return kube_client.ask(client, "PATCH", path, document.data, content_type=_APPLY)


def _try_elsewhere(client: LabClient, kind: Any, data: Any) -> tuple[int, Any]:
    """What the API says to an object whose namespace is not there yet: asked in the one that always is."""
    body = {**data, "metadata": {**data["metadata"], "namespace": "default"}}
    path = f"{_path(kind, 'default')}?dryRun=All&fieldManager=emunet&fieldValidation=Strict"
    code, answer, _ = kube_client.ask(client, "POST", path, body)
    return (200 if answer.get("reason") == "AlreadyExists" else code), answer


def _documents(lab: LabClient, files: tuple[str, ...]) -> list[tuple[Any, Any]]:
    """The objects of files with their kinds; those that others need (namespaces, new kinds) before the others."""
    from emunet.cluster.custom import kind_of
    from emunet.cluster.kinds import NoSuchKind, Registry
    from emunet.cluster.load import BadInput, Document, load_files
    from emunet.cluster.objects import expand

    registry = Registry()
    found = []
    try:
        for document in (one for outer in load_files(files) for one in expand(outer)):
            if not isinstance(document, Document):
                raise LabError(str(document))
            if document.data.get("kind") == "Topology":
                raise LabError("a Topology cannot be applied to a running lab: `emunet down`, then `emunet up`")
            found.append(document)
        found.sort(key=lambda one: one.data.get("kind") not in _FIRST)
        for document in found:
            own = kind_of(document.data) if document.data.get("kind") == "CustomResourceDefinition" else None
            if own is not None:
                registry.add(own)
        if not all(registry.knows(str(one.data.get("apiVersion")), str(one.data.get("kind"))) for one in found):
            _with_custom(lab, registry)
        return [(registry.of(str(one.data.get("apiVersion")), str(one.data.get("kind"))), one) for one in found]
    except (BadInput, NoSuchKind) as error:
        raise LabError(str(error)) from None


@click.command()
@lab_option
@click.argument("words", nargs=-1, metavar="KIND [NAME]...")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@click.option("-l", "--selector", metavar="SELECTOR", help="Only those with such labels: app=web,tier!=db.")
@click.option("-o", "--output", type=click.Choice(["text", "wide", "json", "yaml"]), default="text", help="The form.")
@click.option("--kinds", is_flag=True, help="List the kinds.")
def get(
    lab: str | None, words: tuple[str, ...], namespace: str, all_namespaces: bool, selector: str | None, output: str,
    kinds: bool,
) -> None:  # fmt: skip
    """Show objects: `emunet get pods`, `emunet get deploy web -o yaml`."""
    if kinds:
        _list_kinds()
        return
    client = the_lab(lab)
    wanted = _split(client, words) or [(_kind(client, words[0]), "")]
    for kind, name in wanted:
        path = _path(kind, "" if all_namespaces and not name else namespace, name)
        query = f"?labelSelector={quote(selector)}" if selector and not name else ""
        table = output in ("text", "wide")
        _, answer = _ask(client, "GET", path + query, accept=_TABLE if table else "application/json")
        if table:
            _show(answer, wide=output == "wide", with_namespace=all_namespaces and kind.namespaced)
        elif output == "json":
            print_json(answer)
        else:
            import yaml

            print(yaml.safe_dump(answer, sort_keys=False), end="")


def _list_kinds() -> None:
    from emunet.cluster.kinds import Registry

    for kind in Registry():
        short = f" ({', '.join(kind.short)})" if kind.short else ""
        print(f"{kind.plural}{short}" + ("" if kind.effect else ": kept and listed, no effect on the network"))


def _show(table: dict[str, Any], *, wide: bool, with_namespace: bool) -> None:
    columns = [(index, one["name"]) for index, one in enumerate(table["columnDefinitions"])
               if wide or not one.get("priority")]  # fmt: skip
    rows = [["NAMESPACE"] * with_namespace + [name.upper() for _, name in columns]]
    for row in table["rows"]:
        space = [row["object"]["metadata"].get("namespace", "")] * with_namespace
        rows.append(space + [str(row["cells"][index]) for index, _ in columns])
    if len(rows) == 1:
        print("there are none", file=sys.stderr)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


@click.command()
@lab_option
@click.argument("words", nargs=-1, metavar="KIND NAME...")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="The objects of a file.")
@namespace_option
def delete(lab: str | None, words: tuple[str, ...], files: tuple[str, ...], namespace: str) -> None:
    """End objects, and what they own."""
    client = the_lab(lab)
    wanted: list[tuple[Any, str, str]] = []
    found = _documents(client, files) if files else []
    for kind, document in sorted(found, key=lambda one: one[0].name in _FIRST):  # what others are in goes last
        metadata = document.data.get("metadata") or {}
        wanted.append((kind, metadata.get("namespace") or namespace, str(metadata.get("name", ""))))
    if words or not files:
        wanted += [(kind, namespace, name) for kind, name in _split(client, words)]
    if not wanted or not all(name for _, _, name in wanted):
        raise click.UsageError("say the names of what is to end: `emunet delete deploy web`")
    for kind, space, name in wanted:
        _ask(client, "DELETE", _path(kind, space, name), {"propagationPolicy": "Background"})
        print(f'{kind.singular}{"." + kind.group if kind.group else ""} "{name}" deleted')


@click.command()
@lab_option
@click.argument("words", nargs=-1, metavar="KIND NAME")
@click.option("--replicas", type=click.IntRange(min=0), required=True, help="How many pods there are to be.")
@namespace_option
def scale(lab: str | None, words: tuple[str, ...], replicas: int, namespace: str) -> None:
    """Want another number of pods: `emunet scale deploy web --replicas 5`."""
    client = the_lab(lab)
    for kind, name in _split(client, words):
        if not kind.scale:
            raise LabError(f"a {kind.name} has no number of pods to set")
        path = f"{_path(kind, namespace, name)}/scale"
        _ask(client, "PATCH", path, {"spec": {"replicas": replicas}}, content_type="application/merge-patch+json")
        print(f"{kind.singular}{'.' + kind.group if kind.group else ''}/{name} scaled")
