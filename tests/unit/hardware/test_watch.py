"""GPUs that go missing: refused at the start where one is required, told of while serving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.errors import GpuMissing
from serving.hardware import Gpu, Machine
from serving.hardware.watch import GpuWatch, LostGpu, find_lost, require_gpu
from tests.support.recorded import Recorded, lay_out

Lost = tuple[LostGpu, ...]


@pytest.fixture
def board(tmp_path: Path) -> Recorded:
    """Eight H100."""
    return lay_out("epyc-8xh100", tmp_path)


def test_a_machine_with_its_gpus_is_let_through(board: Recorded) -> None:
    """Also where some are hidden on purpose."""
    require_gpu(board.detect())
    require_gpu(board.detect({"CUDA_VISIBLE_DEVICES": "1"}))


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (Machine(), "no GPU can be used here"),
        (Machine(warnings=("CUDA_VISIBLE_DEVICES=`` hides all GPUs (8)",)), "hides all GPUs (8)"),
        (Machine(gpus=(Gpu(0),), gpu_faults=("GPU 1 does not answer (GPU is lost)",)), "GPU 1 does not answer"),
    ],
)
def test_a_machine_without_is_refused_with_the_reason(machine: Machine, says: str) -> None:
    """None at all, all hidden, or one of several that does not work."""
    with pytest.raises(GpuMissing) as refused:
        require_gpu(machine)
    assert says in refused.value.message
    assert "require_gpu = false" in str(refused.value.hint)


def test_nothing_is_lost_while_all_answer(tmp_path: Path) -> None:
    """Whole GPUs, slices, and those that have no memory to tell of."""
    for name in ("epyc-8xh100", "a100-mig", "jetson-orin"):
        recorded = lay_out(name, tmp_path / name)
        assert find_lost(recorded.detect().gpus, recorded.nvml) == ()


def test_a_gpu_that_stops_answering_is_lost(board: Recorded) -> None:
    """With NVML's reason; the others are not."""
    gpus = board.detect().gpus
    for broken in (
        board.change(5, handle={"error": "NVMLError_GpuIsLost"}),
        board.change(5, nvmlDeviceGetMemoryInfo={"error": "NVMLError_GpuIsLost"}),
    ):
        (lost,) = find_lost(gpus, broken.nvml)
        assert (lost.gpu.index, lost.why) == (5, "GPU is lost")
        assert "GPU 5 (NVIDIA H100 80GB HBM3" in str(lost)
    without = board.with_nvml({"devices": board.nvml.recording["devices"][:5]})
    assert [(lost.gpu.index, lost.why) for lost in find_lost(gpus, without.nvml)] == [
        (5, "Not Found"),
        (6, "Not Found"),
        (7, "Not Found"),
    ]


def test_a_slice_that_was_taken_away_is_lost(tmp_path: Path) -> None:
    """It is asked for by its own UUID."""
    recorded = lay_out("a100-mig", tmp_path)
    gpus = recorded.detect().gpus
    (lost, *_) = find_lost(gpus, recorded.change(0, mig=[]).nvml)
    assert lost.gpu.name == "NVIDIA A100-SXM4-80GB MIG 3g.40gb"


def test_a_driver_that_went_away_takes_all(board: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are lost, and the package's own absence counts as that."""
    gpus = board.detect().gpus
    lost = find_lost(gpus, board.with_nvml({"init": "NVMLError_LibRmVersionMismatch"}).nvml)
    assert len(lost) == 8
    assert "version mismatch" in lost[0].why
    monkeypatch.setattr("serving.hardware.watch.load_nvml", lambda: None)
    assert len(find_lost(gpus)) == 8


class Look:
    """Answers given one after the other; the last one again and again."""

    def __init__(self, *answers: Lost | Exception) -> None:
        self.answers = list(answers)

    def __call__(self, _: Sequence[Gpu]) -> Lost:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def told(look: Look, times: int) -> list[Lost]:
    """What a watch tells until it has told so often."""
    heard: list[Lost] = []
    enough = asyncio.Event()

    def hear(lost: Lost) -> None:
        heard.append(lost)
        if len(heard) == times:
            enough.set()

    task = asyncio.create_task(GpuWatch((Gpu(0), Gpu(1)), hear, every_s=0.0, look=look).run())
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    return heard


async def test_a_loss_and_a_return_are_told_once_each() -> None:
    """What does not change is not told again."""
    gone = (LostGpu(Gpu(1), "GPU is lost"),)
    assert await told(Look((), (), gone, gone, gone, (), gone), 3) == [gone, (), gone]


async def test_a_watch_that_cannot_look_says_so() -> None:
    """A bug in the looking counts as all lost, and the watch goes on."""
    first, second = await told(Look(RuntimeError("no thread"), ()), 2)
    assert [lost.why for lost in first] == ["it cannot be asked for: RuntimeError: no thread"] * 2
    assert second == ()


async def test_a_driver_that_hangs_counts_as_gone() -> None:
    """The event loop is not held up; once the driver answers, the answer counts."""
    release, heard = threading.Event(), asyncio.Queue[Lost]()

    def hang(_: Sequence[Gpu]) -> Lost:
        release.wait(10)
        return ()

    watch = GpuWatch((Gpu(0),), heard.put_nowait, every_s=0.0, timeout_s=0.01, look=hang)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(10):
        (lost,) = await heard.get()
        assert "has not answered" in lost.why
        assert watch.lost == (lost,)
        release.set()
        assert await heard.get() == ()
    task.cancel()


async def test_nothing_to_watch_is_no_watch() -> None:
    """A machine without GPUs costs nothing."""
    async with asyncio.timeout(10):
        await GpuWatch((), lambda _: None, every_s=0.0).run()
