"""FedProx (Li et al. 2020, arXiv:1812.06127, algorithm 2): FedAvg with a proximal term in the devices' loss."""

from common.methods.fedprox import FedProx, FedProxSettings, ProximalOrder
from server.cohorts import Cohort
from server.devices import Device
from server.methods.fedavg import FedAvgServer


class FedProxServer(FedAvgServer):
    """One cohort, averaged; only what devices minimise differs."""

    contract = FedProx

    def order(self, cohort: Cohort, device: Device, number: int) -> ProximalOrder:
        """FedAvg's order with the term's weight."""
        own = self.run.config.of(FedProxSettings).to_mapping()
        return ProximalOrder.from_mapping({**super().order(cohort, device, number).to_mapping(), **own})
