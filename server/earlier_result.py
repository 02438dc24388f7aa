"""The result of a run that goes on for more rounds: kept, but no longer taken for the run's."""

from server.run_folder import RunFolder


def set_result_aside(folder: RunFolder, rounds: int) -> None:
    """Move summary, report and models, if the run has ended after so many rounds, to its folder after-N-rounds.

    Until it ends again the run is one that has not finished, for whoever reads its folder.
    """
    if not folder.summary_path.exists():
        return
    place = folder.path / f"after-{rounds}-rounds"
    models = sorted(folder.models_folder.glob("*.safetensors"))
    for path in (folder.report_path, *models, folder.summary_path):  # this one last: it says that there is a result
        target = place / path.relative_to(folder.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(target)
