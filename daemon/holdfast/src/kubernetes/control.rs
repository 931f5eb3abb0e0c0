//! The order that Kubernetes is under: run as a target says, or stand still.
//!
//! In: orders, by whoever switches, restores or heals. Out: for each order, that it was carried out or why it could not be. It guarantees
//! that an order is answered by its own outcome, never by that of an earlier one, and that the newest order counts.

use super::{KubernetesError, target::K3sTarget};
use std::sync::Arc;
use tokio::sync::watch;

/// What Kubernetes is to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Not run: somebody works on its files.
    Stop,
    /// Run like this.
    Run(Arc<K3sTarget>),
    /// Go on as before if it runs like this already; else the outcome is an error, and it is left as it is.
    Adopt(Arc<K3sTarget>),
}

/// An order and its place in the order of orders.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    order: Order,
}

/// What became of an order.
#[derive(Clone, Debug)]
struct Outcome {
    number: u64,
    result: Result<(), KubernetesError>,
}

/// Where orders are given.
#[derive(Clone, Debug)]
pub struct Control {
    orders: watch::Sender<Numbered>,
    outcomes: watch::Receiver<Outcome>,
}

/// Where they are carried out.
#[derive(Debug)]
pub struct Orders {
    given: watch::Receiver<Numbered>,
    outcomes: watch::Sender<Outcome>,
    number: u64,
}

/// Both ends. Until the first order, a running Kubernetes is left as it is, and none is started.
pub fn channel() -> (Control, Orders) {
    let (orders, received) = watch::channel(Numbered {
        number: 0,
        order: Order::Stop,
    });
    let (told, outcomes) = watch::channel(Outcome {
        number: 0,
        result: Ok(()),
    });
    let receiver = Orders {
        given: received,
        outcomes: told,
        number: 0,
    };
    (Control { orders, outcomes }, receiver)
}

impl Control {
    /// Gives an order and waits until it is carried out. One that is overtaken by another is answered with the other's outcome.
    pub async fn give(&self, order: Order) -> Result<(), KubernetesError> {
        let mut outcomes = self.outcomes.clone();
        let number = self.send(order);
        let seen = outcomes.wait_for(|outcome| outcome.number >= number).await;
        match seen.map(|outcome| outcome.result.clone()) {
            Ok(result) => result,
            // The end of the daemon; nobody waits for this answer any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives an order without waiting.
    pub fn send(&self, order: Order) -> u64 {
        let mut given = 0;
        self.orders.send_modify(|numbered| {
            given = numbered.number + 1;
            *numbered = Numbered { number: given, order };
        });
        given
    }
}

impl Orders {
    /// Waits for the first order.
    pub async fn begun(&mut self) {
        let ended = (self.given.wait_for(|numbered| numbered.number > 0).await).is_err();
        if ended {
            std::future::pending::<()>().await;
        }
    }

    /// The newest order; [`Self::tell`] answers it.
    pub fn newest(&mut self) -> Order {
        let numbered = self.given.borrow_and_update();
        self.number = numbered.number;
        numbered.order.clone()
    }

    /// Waits for another order than the newest one. Cancel safe.
    pub async fn changed(&self) {
        let number = self.number;
        let mut orders = self.given.clone();
        let ended = (orders.wait_for(|numbered| numbered.number > number).await).is_err();
        if ended {
            // The sender is gone only when the daemon ends; then this task is dropped as well.
            std::future::pending::<()>().await;
        }
    }

    /// Tells what became of the order that [`Self::newest`] gave.
    pub fn tell(&self, result: Result<(), KubernetesError>) {
        let number = self.number;
        self.outcomes.send_if_modified(|outcome| {
            // Later attempts at the same order are nobody's answer.
            if outcome.number == number {
                return false;
            }
            *outcome = Outcome { number, result };
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered_by_its_own_outcome() {
        let (control, mut orders) = channel();
        let giver = tokio::spawn(async move {
            let first = control.give(Order::Stop).await;
            (first, control.give(Order::Stop).await)
        });
        orders.begun().await;
        orders.newest();
        let error = KubernetesError::Starting {
            kubeconfig: "here".into(),
        };
        orders.tell(Err(error.clone()));
        orders.tell(Ok(()));
        orders.changed().await;
        orders.newest();
        orders.tell(Ok(()));
        assert_eq!(giver.await.unwrap(), (Err(error), Ok(())));
    }
}
