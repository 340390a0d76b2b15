"""Launching compiled kernels: the interface that cuda.py draws through, and its implementation on NVIDIA's driver.

The driver's API is called by ctypes; memory, streams and the context are torch's.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_void_p
from functools import cache
from typing import Any, Protocol

import torch

from smalti.renderers.engine.cubins import cubin_for
from smalti.renderers.engine.kernel_source import KernelSource
from smalti.renderers.engine.library import EngineError

THREADS = 256
"""Threads per block of every kernel: the pixels of a tile."""


class Device(Protocol):
    """What runs kernels: a CUDA device, or the emulator of the tests."""

    def launch(self, source: KernelSource, kernel: str, blocks: int, parameters: ctypes.Structure) -> None:
        """Run `blocks` blocks of `kernel`, which takes `parameters` by value, behind what was launched before."""
        ...


class CudaDevice:
    """A CUDA device, through the driver's API, in torch's primary context and on torch's current stream."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.driver = _driver()
        self.context = c_void_p()
        device = c_int()
        # torch numbers the devices that CUDA_VISIBLE_DEVICES leaves, and so does the driver.
        self._check("cuDeviceGet", byref(device), index)
        self._check("cuDevicePrimaryCtxRetain", byref(self.context), device)
        major, minor = torch.cuda.get_device_capability(index)
        self.capability = 10 * major + minor
        self.functions: dict[tuple[KernelSource, str], c_void_p] = {}
        self.modules: dict[KernelSource, c_void_p] = {}

    def launch(self, source: KernelSource, kernel: str, blocks: int, parameters: ctypes.Structure) -> None:
        """See `Device`."""
        if blocks == 0:
            return
        self._enter()
        function = self.functions.get((source, kernel)) or self._function(source, kernel)
        stream = c_void_p(torch.cuda.current_stream(self.index).cuda_stream)
        arguments = (c_void_p * 1)(ctypes.addressof(parameters))
        self._check("cuLaunchKernel", function, blocks, 1, 1, THREADS, 1, 1, 0, stream, arguments, None)

    def _enter(self) -> None:
        """Make torch's context current in this thread: autograd's workers may not have touched the device yet."""
        current = c_void_p()
        self._check("cuCtxGetCurrent", byref(current))
        if current.value != self.context.value:
            self._check("cuCtxSetCurrent", self.context)

    def _function(self, source: KernelSource, kernel: str) -> c_void_p:
        if source not in self.modules:
            self.modules[source] = self._module(source)
        function = c_void_p()
        self._check("cuModuleGetFunction", byref(function), self.modules[source], kernel.encode())
        self.functions[source, kernel] = function
        return function

    def _module(self, source: KernelSource) -> c_void_p:
        module = c_void_p()
        code = cubin_for(source, self.capability)
        if self.driver.cuModuleLoadData(byref(module), code):
            # Whole, but not for this driver: say, a cache folder shared by several machines.
            code = cubin_for(source, self.capability, fresh=True)
            self._check("cuModuleLoadData", byref(module), code)
        return module

    def _check(self, function: str, *arguments: Any) -> None:
        status = getattr(self.driver, function)(*arguments)
        if status:
            text = c_char_p()
            self.driver.cuGetErrorString(status, byref(text))
            words = (text.value or b"unknown error").decode()
            raise EngineError(f"{function} on cuda:{self.index}: {words} (code {status})")


@cache
def _driver() -> ctypes.CDLL:
    """The driver's library, initialised."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError(
            f"NVIDIA's driver library libcuda.so.1 cannot be loaded: {error}; install the driver"
        ) from error
    status = driver.cuInit(0)
    if status:
        raise EngineError(f"NVIDIA's driver cannot be initialised (cuInit: {status}); see nvidia-smi")
    return driver


@cache
def cuda_device(index: int) -> CudaDevice:
    """The device of torch's number `index`; made at first use."""
    torch.cuda.init()
    return CudaDevice(index)
