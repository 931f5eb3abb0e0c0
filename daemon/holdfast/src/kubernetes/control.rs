//! The order that Kubernetes is under: run as a target says, or stand still.
//!
//! In: orders, by whoever switches, restores or heals. Out: for each order, that it was carried out or why it could not be. It guarantees
//! that an order is answered by its own outcome, never by that of an earlier one, and that the newest order counts. An order that cannot be
//! carried out because another program is there by now waits for the next one, which whoever gives orders is asked for.

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
    exchanged: watch::Receiver<u64>,
}

/// Where they are carried out.
#[derive(Debug)]
pub struct Orders {
    given: watch::Receiver<Numbered>,
    outcomes: watch::Sender<Outcome>,
    exchanged: watch::Sender<u64>,
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
    let (asks, exchanged) = watch::channel(0);
    let receiver = Orders {
        given: received,
        outcomes: told,
        exchanged: asks,
        number: 0,
    };
    let control = Control {
        orders,
        outcomes,
        exchanged,
    };
    (control, receiver)
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

    /// Waits until an order is found that wants another program than the one which is there by now.
    pub async fn exchanged(&self) {
        let mut asks = self.exchanged.clone();
        let ended = (asks.wait_for(|number| self.is_newest(*number)).await).is_err();
        if ended {
            // The end of the daemon.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the newest order is one of those. Whoever gives another order answers it.
    pub fn waits_for_program(&self) -> bool {
        self.is_newest(*self.exchanged.borrow())
    }

    fn is_newest(&self, number: u64) -> bool {
        number > 0 && self.orders.borrow().number == number
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

    /// Asks for another order in place of the newest one, whose program is not there any more.
    pub fn ask_for_another(&self) {
        self.exchanged.send_replace(self.number);
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

    #[tokio::test]
    async fn an_order_whose_program_is_gone_asks_for_another_one_until_there_is_one() {
        let (control, mut orders) = channel();
        control.send(Order::Stop);
        orders.newest();
        assert!(!control.waits_for_program());
        orders.ask_for_another();
        control.exchanged().await;
        assert!(control.waits_for_program());
        // Somebody else's order answers it as well.
        control.send(Order::Stop);
        assert!(!control.waits_for_program());
        orders.ask_for_another();
        assert!(!control.waits_for_program(), "that was the order before");
    }
}
