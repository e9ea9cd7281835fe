"""Lines in the forms that tegrastats has had, from Jetson TX2 to Thor; no Jetson was at hand."""

import sys

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekit.errors import EnvironmentLacks
from edgekit.targets.telemetry import Sample, readers
from edgekit.targets.telemetry.tegrastats import parse

TX2 = (
    "RAM 2031/7852MB (lfb 1100x4MB) CPU [8%@345,off,off,3%@345,1%@345,2%@345] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@42C MCPU@42C PMIC@100C Tboard@40C GPU@41.5C Tdiode@41.25C "
    "VDD_SYS_GPU 152/157 VDD_SYS_SOC 533/540 VDD_IN 3150/3204"
)
XAVIER = (
    "03-02-2024 10:11:12 RAM 2688/6854MB (lfb 6x1MB) SWAP 480/3427MB (cached 3MB) "
    "CPU [3%@1904,7%@1906,off,off] EMC_FREQ 2%@1600 GR3D_FREQ 10%@1000 VIC_FREQ 601 APE 150 "
    "AUX@39C CPU@39.5C GPU@37.5C PMIC@50C VDD_IN 5080mW/5070mW VDD_CPU_GPU_CV 700mW/690mW"
)
ORIN = (
    "05-09-2026 18:00:06 RAM 18200/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) "
    "CPU [14%@2188,5%@2112] EMC_FREQ 3%@2133 GR3D_FREQ 45%@[1300,1299] NVENC 79%@166 NVDEC off "
    "NVDLA0 off APE 174 CV0@-256C cpu@52.562C tj@52.562C soc1@49.656C "
    "VDD_GPU_SOC 2412mW/2400mW VDD_CPU_CV 1607mW/1600mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW"
)
ORIN_NANO = (
    "RAM 3162/7620MB (lfb 8x4MB) SWAP 0/3810MB (cached 0MB) CPU [1%@1510,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 99%@[612] gpu@49.625C VDD_IN 4952mW/4800mW VDD_SOC 1544mW/1540mW"
)
THOR = (
    "07-02-2026 13:45:00 RAM 36500/125749MB (lfb 12x4MB) SWAP 11/4096MB (cached 9MB) "
    "CPU [2%@972,1%@972] cpu@60.406C tj@63.281C/114.5C gpu@62.906C/114.5C "
    "VDD_GPU -392mW/37528mW/37528mW VDD_CPU_SOC_MSS 18961mW/18961mW/18961mW "
    "VIN_SYS_5V0 18331mW/18331mW/18331mW VIN 87426mW/43713mW/87426mW"
)


@pytest.mark.parametrize(
    ("text", "load_percent", "clocks_mhz"),
    [
        ("GR3D_FREQ 0%", 0, {}),
        ("GR3D_FREQ 10%@1000", 10, {"gpu": 1000}),
        ("GR3D_FREQ 0%@[1300,1300]", 0, {"gpu0": 1300, "gpu1": 1300}),
        ("GR3D_FREQ 99%@[612]", 99, {"gpu": 612}),
        ("GR3D_FREQ @[1000,998,0]", None, {"gpu0": 1000, "gpu1": 998, "gpu2": 0}),
        ("", None, {}),
    ],
)
def test_every_form_of_the_gpus_load(text, load_percent, clocks_mhz):
    sample = parse(f"RAM 1/2MB {text} VIC_FREQ 729")
    assert sample.gpu_load_percent == load_percent
    assert sample.clocks_mhz == clocks_mhz


def test_tx2_writes_power_without_its_unit():
    sample = parse(TX2)
    assert sample.power_mw == {"VDD_SYS_GPU": 152, "VDD_SYS_SOC": 533, "VDD_IN": 3150}
    assert sample.cpu_load_percent == (8, None, None, 3, 1, 2)
    assert sample.temperature_c["Tdiode"] == 41.25
    assert (sample.ram_used_mib, sample.ram_total_mib) == (2031, 7852)
    assert (sample.swap_used_mib, sample.swap_total_mib) == (None, None)


def test_xavier():
    assert parse(XAVIER) == Sample(
        power_mw={"VDD_IN": 5080, "VDD_CPU_GPU_CV": 700},
        temperature_c={"AUX": 39, "CPU": 39.5, "GPU": 37.5, "PMIC": 50},
        clocks_mhz={"cpu0": 1904, "cpu1": 1906, "emc": 1600, "gpu": 1000},
        gpu_load_percent=10,
        emc_load_percent=2,
        cpu_load_percent=(3, 7, None, None),
        ram_used_mib=2688,
        ram_total_mib=6854,
        swap_used_mib=480,
        swap_total_mib=3427,
    )


def test_orin_leaves_out_unpowered_zones_and_unconnected_rails():
    sample = parse(ORIN)
    assert sample.temperature_c == {"cpu": 52.562, "tj": 52.562, "soc1": 49.656}
    assert sample.power_mw == {"VDD_GPU_SOC": 2412, "VDD_CPU_CV": 1607, "VDDQ_VDD2_1V8AO": 301}
    assert sample.gpu_load_percent == 45
    assert parse(ORIN_NANO).power_mw == {"VDD_IN": 4952, "VDD_SOC": 1544}


def test_thor_has_no_gpu_load_and_a_peak_for_each_rail():
    sample = parse(THOR)
    assert sample.gpu_load_percent is None
    assert sample.power_mw == {
        "VDD_GPU": -392,  # below its sensor's zero
        "VDD_CPU_SOC_MSS": 18961,
        "VIN_SYS_5V0": 18331,
        "VIN": 87426,
    }
    assert sample.temperature_c == {"cpu": 60.406, "tj": 63.281, "gpu": 62.906}


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
@example("CPU [" * 5000)
@example("A" * 100_000 + "@1C")
@example("RAM 99999999999999999999/1MB")
@example("CPU [] GR3D_FREQ % VDD_IN mW/mW tj@C")
def test_any_other_text_says_nothing_and_raises_nothing(text):
    sample = parse(text)
    assert msgspec.json.decode(msgspec.json.encode(sample), type=Sample) == sample


@settings(deadline=None)
@given(st.lists(st.sampled_from(" ".join([TX2, XAVIER, ORIN, THOR]).split()), max_size=60))
def test_pieces_of_lines_in_any_order_raise_nothing(words):
    sample = parse(" ".join(words))
    assert all(load is None or load >= 0 for load in sample.cpu_load_percent)


def program(root, script):
    """Write a stand-in for tegrastats, which only NVIDIA's images have."""
    path = root / "usr/bin/tegrastats"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)


def test_the_reader_takes_one_line_of_a_program_that_never_ends(tmp_path):
    program(tmp_path, f"import time\nwhile 1:\n print({ORIN!r}, flush=True)\n time.sleep(0.1)")
    (reader,) = readers(tmp_path)
    assert reader.name == "tegrastats"
    assert reader.read() == reader.read() == parse(ORIN)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "printed no line within .* no other program of that name"),
        ("import time\ntime.sleep(60)", "printed no line within"),
    ],
)
def test_a_program_that_says_nothing(tmp_path, monkeypatch, script, message):
    monkeypatch.setattr("edgekit.targets.telemetry.tegrastats._PATIENCE_S", 0.5)
    program(tmp_path, script)
    (reader,) = readers(tmp_path)
    with pytest.raises(EnvironmentLacks, match=message):
        reader.read()


def test_a_program_that_cannot_be_run(tmp_path):
    program(tmp_path, "")
    (tmp_path / "usr/bin/tegrastats").chmod(0o644)
    (reader,) = readers(tmp_path)
    with pytest.raises(EnvironmentLacks, match=r"cannot run .*tegrastats: Permission denied"):
        reader.read()
