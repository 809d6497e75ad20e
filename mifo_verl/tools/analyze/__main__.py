"""``mifo analyze``: the paper's analyses of checkpoints, and the trainings that they need."""

import sys

from mifo_verl.tools.command_line import run

USAGE = """usage: mifo analyze <what> <weights> ... [key=value ...]
  updates   START END [END ...]            norm of every END's update, by layer and by kind of matrix
  prune     START END out=<folder> [rates=0,0.1,0.2,0.3,0.4,0.5] [seed=0] [rescale=no|dare] [dtype=bfloat16]
                                           pruned models as Hugging Face folders out/rate_<p>;
        benchmarks=[<name or file>,...] [setting=value ...]   evaluates each, with the settings of mifo evaluate
  subspace  START END [rank=16] [device=cpu]   principal angles of the leading singular vectors
  overlap   START A B [start_b=START_B] [dtype=bfloat16|float32]   where the updates to A and to B meet
  these four but prune: [json=<file>]      the same numbers in a file
  predictors  SWEEP benchmarks=[<file>,...] [samples=64] [setting=value ...]   what the start models of a sweep's runs
                                           were before RL (cross-entropy, pass@k: the settings of mifo evaluate), and
                                           how each ranks them against their accuracy after it
  sparsify    [setting=value ...]          training with gradients dropped at random, RL and SFT, several rates
  forgetting  [rl_steps=50] [steps=10] [setting=value ...]   RL, then every method's own objective from there
  sensitivity [setting=value ...]          MIFO's p, rho, k, alpha and S, one at a time
                                           these train: settings, sweep_dir= and jobs= are those of mifo sweep
  fork RUN [RUN ...] sweep=<arms> out=<folder> [bed=<name> data=data/fork | train=, own=, gained=<parquet>]
                                           SFT phases that begin at a checkpoint and differ in one part each: the arms of
        trainer_configs/fork/<arms>.yaml, or of a .yaml file. train= is what they learn, own= asks what the checkpoint
        could, gained= what is taught; gain=<share> is where arms are compared. An arm that is done is not run again
        only=[<arm>,...] updates= order=0 probes=64 engine=auto batch=256 threads=1 gpu_memory=0.4, and overrides of
        all arms
weights: a Hugging Face folder, a checkpoint global_step_N, or global_step_N@start, where its interval began"""


def main(arguments: list[str]) -> int:
    """Run one analysis; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    what, rest = arguments[0], arguments[1:]
    if what in ("sparsify", "sensitivity"):
        from mifo_verl.tools.sweep.__main__ import main as sweep

        return sweep([f"sweep={what}", *rest])
    if what == "forgetting":
        from mifo_verl.tools.sweep.forgetting import forgetting
        from mifo_verl.tools.sweep.sweep import exit_code

        return exit_code(lambda: forgetting(rest))

    if what == "fork":
        from mifo_verl.tools.fork.fork import fork

        return run(lambda: fork(rest))
    if what == "predictors":
        from mifo_verl.tools.analyze.predictors import predictors

        return run(lambda: predictors(rest))

    def analyze() -> None:
        from mifo_verl.tools.analyze.analyses import analyze

        analyze(what, rest)

    return run(analyze)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
