"""What /metrics says, as numbers."""

from prometheus_client.parser import text_string_to_metric_families

from scripts.launch import ServiceProcess


def metric(service: ServiceProcess, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(service.scrape())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
