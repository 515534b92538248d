"""What can stop a training job, as one small family. Each message is one sentence or two: what, and what to do next."""


class TrainingProblem(Exception):
    """A foreseeable failure: the command line prints it without a traceback and exits with 1."""


class DataProblem(TrainingProblem):
    """The data set is missing, cannot be downloaded, or is not what it should be."""


class RepositoryProblem(TrainingProblem):
    """The model repository cannot be written."""


class GoldenDisagreement(TrainingProblem):
    """The exported copy does not answer the golden examples as training did: it was not published."""


class ResultsProblem(TrainingProblem):
    """The folder for what is not the model cannot be written."""


class CheckpointProblem(TrainingProblem):
    """What an earlier run left cannot be gone on from."""


class DivergedProblem(TrainingProblem):
    """The loss is no number any more."""


class DevicesProblem(TrainingProblem):
    """The workers or devices that were asked for cannot be used."""
