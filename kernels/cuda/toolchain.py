"""The pinned CUDA compilers: NVRTC, which makes PTX, and ptxas, which makes machine code of PTX as drivers do.

They come from PyPI as wheels, through pip, which holds them to the hashes below. No GPU, driver or CUDA is needed.
"""
import ctypes
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class Failure(Exception):
    """What cannot be done, said in a sentence."""


@dataclass(frozen=True)
class Wheel:
    """A package of PyPI, one file of it, and what of that file is used."""

    package: str
    version: str
    sha256: str
    wanted: str

    @property
    def folder(self):
        return f"{self.package}-{self.version}"


# The oldest NVRTC of CUDA 12: what it writes, PTX 8.0, loads on every driver since 525, and a newer one made no kernel
# smaller. ptxas twice: as the oldest of those drivers has it, and one that knows newer devices.
NVRTC = Wheel("nvidia-cuda-nvrtc-cu12", "12.0.140",
              "8e94e991d85c422de4da87bdc7472fdc1364367bd4aace7000b559cd33122071", "nvidia/cuda_nvrtc/lib/")
OLD_PTXAS = Wheel("nvidia-cuda-nvcc-cu12", "12.0.140",
                  "958d54df87d0c0b7207e7fed403d6eeda0890a01cc44cfeaccf87c7f90e9b165", "nvidia/cuda_nvcc/bin/ptxas")
NEW_PTXAS = Wheel("nvidia-cuda-nvcc-cu12", "12.9.86",
                  "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0", "nvidia/cuda_nvcc/bin/ptxas")

# Families of instructions that one architecture alone has; all others are compiled for sm_80 and what came after it.
ARCHITECTURES = {
    "gemm_hopper": "90a",
    "gemm_hopper_gradients": "90a",
    "gemm_hopper_wide": "90a",
    "peak_hopper": "90a",
}

# What the PTX is assembled for: Ampere, Ada, Hopper, Blackwell.
TARGETS = [(OLD_PTXAS, "sm_80"), (OLD_PTXAS, "sm_90a"),
           (NEW_PTXAS, "sm_80"), (NEW_PTXAS, "sm_89"), (NEW_PTXAS, "sm_90a"), (NEW_PTXAS, "sm_100")]


def target_name(target):
    """As columns of registers.tsv are called: the architecture and the assembler's version."""
    wheel, architecture = target
    return f"{architecture}/{wheel.version.rsplit('.', 1)[0]}"

# An option of NVRTC: PTX that names the lines of its source.
LINE_INFO = "--generate-line-info"


class Toolchain:
    """The compilers in a folder, fetched when they are first asked for."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self._nvrtc = None

    def fetch(self, wheel):
        """The folder with what is used of `wheel`."""
        folder = self.folder / wheel.folder
        if folder.is_dir():
            return folder
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise Failure("the CUDA compilers are pinned for Linux on x86-64 alone")
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            downloaded = download(wheel, Path(temporary))
            unpacked = Path(temporary) / "unpacked"
            with zipfile.ZipFile(downloaded) as archive:
                archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(wheel.wanted)])
            for path in unpacked.rglob("ptxas"):
                path.chmod(0o755)
            try:
                unpacked.rename(folder)
            except OSError:
                # Another process was faster.
                if not folder.is_dir():
                    raise
        return folder

    def fetch_all(self):
        for wheel in (NVRTC, OLD_PTXAS, NEW_PTXAS):
            self.fetch(wheel)

    def nvrtc(self):
        if self._nvrtc is None:
            self._nvrtc = Nvrtc(self.fetch(NVRTC) / NVRTC.wanted / "libnvrtc.so.12")
        return self._nvrtc

    def assemble(self, ptx, target):
        """{kernel: Resources} of a file of PTX on a target; nothing where it is not meant for that.

        Raises `Failure` with what ptxas has against it.
        """
        wheel, architecture = target
        if not architecture.endswith(ARCHITECTURES.get(ptx.stem, "")):
            return {}
        ptxas = self.fetch(wheel) / wheel.wanted
        command = [ptxas, "--verbose", "--warning-as-error", "--gpu-name", architecture,
                   "--output-file", os.devnull, ptx]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(f"ptxas {wheel.version} for {architecture} refuses {ptx}:\n{done.stdout.strip()}")
        return parse_resources(done.stdout)


def download(wheel, folder):
    """The file of `wheel`, fetched into `folder`."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--require-hashes",
               "--only-binary", ":all:", "--retries", "5", "--dest", folder, "--requirement", requirement]
    # pip's progress goes where ours does; results alone go to stdout.
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise Failure(f"{wheel.package} {wheel.version} could not be fetched from PyPI by `python3 -m pip`, see above; "
                      "without a network, PIP_FIND_LINKS names a folder that has the wheel")
    return next(folder.glob("*.whl"))


class Nvrtc:
    """The compiler, a library that is called."""

    def __init__(self, library):
        self.nvrtc = ctypes.CDLL(str(library))
        self.nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p

    def compile(self, source, include, options=()):
        """The PTX of a file of CUDA C++, as bytes: the same for the same text, wherever it lies.

        NVRTC's remarks fail as its errors do.
        """
        architecture = ARCHITECTURES.get(source.stem, "80")
        options = [f"--gpu-architecture=compute_{architecture}", "--std=c++17", f"--include-path={include}",
                   # NVRTC puts its own <nv/target> before every file, 38 variables of each module that nothing reads.
                   "-D__NV_TARGET_H", *options]
        program = ctypes.c_void_p()
        # The name alone, as the PTX has it in the names of static variables; tools that show lines look for the file.
        name = str(source) if LINE_INFO in options else source.name
        self._call("CreateProgram", ctypes.byref(program), source.read_bytes(), name.encode(), 0, None, None)
        try:
            array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
            status = self.nvrtc.nvrtcCompileProgram(program, len(options), array)
            remarks = self._text(program, "ProgramLog").decode().strip()
            if status != 0 or remarks:
                raise Failure(remarks or self._error(status))
            return self._text(program, "PTX")
        finally:
            self.nvrtc.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program, what):
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, buffer)
        return buffer.value

    def _call(self, name, *arguments):
        status = getattr(self.nvrtc, f"nvrtc{name}")(*arguments)
        if status != 0:
            raise Failure(f"nvrtc{name}: {self._error(status)}")

    def _error(self, status):
        return self.nvrtc.nvrtcGetErrorString(status).decode()


@dataclass(frozen=True)
class Resources:
    """What a kernel takes: registers a thread, bytes of its stack and of spilled registers; shared bytes a block."""

    registers: int
    stack: int
    spilled: int
    shared: int

    def __str__(self):
        """As cells of registers.tsv have it."""
        parts = [str(self.registers)]
        if self.stack:
            parts.append(f"stack {self.stack}")
        if self.spilled:
            parts.append(f"spilled {self.spilled}")
        if self.shared:
            parts.append(f"shared {self.shared}")
        return ", ".join(parts)


def parse_resources(report):
    """{kernel: Resources} of what `ptxas --verbose` prints."""
    resources, stacks, kernel, function = {}, {}, None, None
    for line in report.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)'", line):
            kernel = found[1]
        elif found := re.search(r"Function properties for (\S+)", line):
            function = found[1]
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stacks[function] = int(found[1]), int(found[2]) + int(found[3])
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            resources[kernel] = Resources(int(found[1]), *stacks[kernel], int(shared[1]) if shared else 0)
    return resources


def default_folder(root):
    """Where the compilers lie when nobody says otherwise."""
    return Path(os.environ.get("MANYGATE_CUDA_TOOLCHAIN") or root / "target" / "cuda-toolchain")
