"""An Ascend NPU without an Ascend NPU: test equipment, in no wheel.

The genuine torch_npu runs here on an ordinary machine: its operator schemas, dispatcher registrations, autograd
formulas, autocast policy, FakeTensor metas, allocator and ProcessGroupHCCL are Huawei's own. What is emulated lies
below it (CANN, by stub libraries) and beside it (the kernels, by PyTorch's on the CPU). So a green run says that
our code calls the right things in the right way; of Huawei's kernels, their speed and their memory it says nothing.

    build_stub.py            stub libraries from the symbols that the installed torch_npu asks for
    acl_host.c               the runtime of CANN on host memory
    hccl_host.c              collectives between processes over shared memory
    opapi_refusing.c         a library of kernels that refuses them all: tells the device from silent host fallbacks
    host_kernels.py          kernels for device npu that compute on the CPU
    references.py            the vendor's own operators, from the vendor's documents
    attention_references.py  the largest of them
    documents.py             what the documents forbid
    device_memory.py         device memory seen from the CPU
    start.py                 what every Python process of these tests does first
    plugin.py                pytest: a refused call fails the test that made it

A green run can be trusted because results are compared with the CPU's and not merely produced; because what is
not emulated is refused, and fails the test; because TASK_QUEUE_ENABLE=0 lets errors surface where they happen;
and because TORCH_NPU_FALLBACK_CPU_DISABLE=1 keeps torch_npu from computing on the host what it has no kernel for.
Not emulated: send and receive, all-to-all, sub-communicators, several machines, asynchronous errors, graphs.
"""
