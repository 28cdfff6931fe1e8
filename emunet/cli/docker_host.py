"""`emunet docker-host`: where the real docker client finds the engine of a lab's host.

Rule of this file: what it prints is ready for `eval`, and nothing else.
"""

from __future__ import annotations

import shlex

import click

from emunet.cli.options import lab_option, the_lab
from emunet.daemon.client import LabError


@click.command()
@lab_option
@click.argument("host")
def docker_host(lab: str | None, host: str) -> None:
    """Print the variable that points docker to a host of the lab.

    \b
    eval $(emunet docker-host host1)
    docker run --rm -it busybox sh
    """  # noqa: D301 - click knows the character by this escape
    paths = the_lab(lab).get("docker")
    if host not in paths:
        raise LabError(f"there is no host {host}; there are: {', '.join(paths)}")
    print(f"export DOCKER_HOST={shlex.quote('unix://' + paths[host])}")
