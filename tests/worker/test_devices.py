"""Which GPU an attempt gets."""

import pytest

from worker.devices import CPU, Device, Devices, chosen

GPUS = tuple(Device(name="H200", index=index, uuid=f"GPU-{index}{index}", memory_bytes=1) for index in range(3))


@pytest.mark.parametrize(
    ("variable", "indices"),
    [(None, [0, 1, 2]), ("", []), ("2,0", [2, 0]), ("GPU-11", [1]), ("0,9,1", [0]), ("-1", [])],
)
def test_variable_chooses_as_cuda_does(variable: str | None, indices: list[int]) -> None:
    assert [device.index for device in chosen(GPUS, variable)] == indices


def test_attempts_at_the_same_time_get_different_gpus() -> None:
    devices = Devices(GPUS[:2])
    with devices.assigned("auto") as first, devices.assigned("gpu") as second:
        assert {first.label, second.label} == {"cuda:0", "cuda:1"}
        assert {first.device, second.device} == {"cuda:0"}
        assert first.env["CUDA_VISIBLE_DEVICES"] == "GPU-00"


def test_gpu_that_is_given_back_is_lent_again() -> None:
    devices = Devices(GPUS[:1])
    for _ in range(2):
        with devices.assigned("gpu") as assignment:
            assert assignment.label == "cuda:0"


def test_cpu_job_and_host_without_gpus_compute_on_the_cpu() -> None:
    with Devices(GPUS).assigned("cpu") as assignment:
        assert assignment == CPU
    with Devices(()).assigned("gpu") as assignment:
        assert assignment == CPU
