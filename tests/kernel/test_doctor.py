"""What `emunet doctor` says: of this machine, which runs these tests, and of machines that refuse."""

from __future__ import annotations

import errno
import sys

import pytest
from kernel_bench import enter_namespaces, in_child

from emunet.linux import doctor, refusals, syscalls
from emunet.linux.keeper_client import Keeper
from emunet.linux.refusals import LinuxRefused, refusal


def test_this_machine_runs_a_lab() -> None:
    findings = doctor.examine()
    assert all(finding.ok for finding in findings if finding.needed)
    for finding in findings:
        assert finding.detail.endswith("."), finding
        assert finding.ok or finding.cure.endswith("."), finding
    allowed, sentence = doctor.can_use_taps()
    assert allowed
    assert sentence.endswith(".")


def test_elsewhere_than_on_linux_memory_wires_are_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    [finding] = doctor.examine()
    assert not finding.ok
    assert "--wires memory" in finding.cure


@pytest.mark.parametrize(
    ("settings", "number", "cure"),
    [
        ({"user/max_user_namespaces": "0"}, errno.ENOSPC, "user.max_user_namespaces=15000"),
        ({"kernel/unprivileged_userns_clone": "0"}, errno.EPERM, "kernel.unprivileged_userns_clone=1"),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            errno.EACCES,
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({}, errno.EINVAL, "as root"),
        ({}, errno.EPERM, "--privileged"),
    ],
)
def test_the_cure_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], number: int, cure: str
) -> None:
    monkeypatch.setattr(refusals, "read_setting", settings.get)
    refused = refusal("user", number, "making new namespaces (user): refused")
    assert cure in refused.cure
    assert "--wires memory" in refused.cure
    assert str(refused).startswith("This machine allows no user namespace")


def test_a_masked_proc_is_told_from_other_refusals() -> None:
    assert "systempaths=unconfined" in refusal("mounts", errno.EPERM, "mounting proc on /proc: refused").cure


def test_without_a_tun_device_a_keeper_says_how_to_make_it() -> None:
    def work() -> None:
        enter_namespaces(0)
        syscalls.mount("tmpfs", "/dev/net", "tmpfs")
        with pytest.raises(LinuxRefused, match=r"TAPs cannot be opened: .*No such file or directory") as refused:
            Keeper.start()
        assert "mknod" in refused.value.cure
        allowed, sentence = doctor.can_use_taps()
        assert not allowed
        assert "modprobe tun" in sentence

    in_child(work)


def test_where_user_namespaces_are_used_up_a_keeper_says_so() -> None:
    def work() -> None:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        with open("/proc/sys/user/max_user_namespaces", "w") as file:  # of this namespace, for those inside it
            file.write("0")
        with pytest.raises(LinuxRefused, match="allows no user namespace") as refused:
            Keeper.start()
        assert "max_user_namespaces" in refused.value.cure

    in_child(work)
