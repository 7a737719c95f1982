"""
Trains EILEV under FSDP without a GPU: `accelerate launch --config_file fsdp2.yaml fsdp_on_cpu.py ARGUMENTS`.

torch shards on CPUs as well, but accelerate turns FSDP on where there are GPUs alone; so it is told that there are.
"""

from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
    run_training,
)


def main():
    make = Accelerator.__init__

    def make_with_gpus(*args, **kwargs):
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        make(*args, **kwargs)

    Accelerator.__init__ = make_with_gpus
    run_training(*parse_arguments([ModelArguments, EilevDataArguments, VideoNarrationTrainingArguments]))
    # Or a process may abort at its very end, when threads of the others still talk to it.
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
