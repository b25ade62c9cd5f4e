//! What happens to a call, decided on the host by the code that the kernel runs.

mod fixture;
mod rules;
mod socket;
