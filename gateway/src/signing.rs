//! Signatures of messages, made for all at once that are ready at one time: under load a signature is the most expensive part of
//! an exchange, and one over a hash tree costs as much as one over a message (ADR 0002). Nobody waits for a batch to fill: a message
//! that is alone is signed alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use saatkond_pki::certificate::CertificateHash;
use saatkond_pki::evidence::{self, MAX_BATCH, MessageDigests, SigningCredential};
use tokio::sync::oneshot;

use crate::state::chain;

/// The messages that wait for a signature, by the certificate to sign with.
#[derive(Clone, Default)]
pub struct Signing(Arc<Mutex<HashMap<CertificateHash, Vec<Waiting>>>>);

struct Waiting {
    digests: MessageDigests,
    answer: oneshot::Sender<Result<Bytes, String>>,
}

impl Signing {
    /// Signs a message in the name of the credential's holder. `now` becomes the signing time of the batch that it opens.
    pub async fn sign(
        &self,
        digests: MessageDigests,
        credential: &Arc<SigningCredential>,
        now: Timestamp,
    ) -> Result<Bytes, String> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut queues = self.lock();
            let queue = queues.entry(credential.facts().sha256).or_default();
            queue.push(Waiting { digests, answer });
            queue.len() == 1
        };
        if is_first {
            // A task of its own: the caller of this message may go away, the others' must still be signed.
            let (signing, credential) = (self.clone(), credential.clone());
            tokio::spawn(async move {
                // Comes back when everything that is ready has run; what of it needs a signature is in the queue by then.
                tokio::task::yield_now().await;
                signing.sign_waiting(&credential, now);
            });
        }
        answered.await.unwrap_or_else(|_| Err("the process is ending".into()))
    }

    fn sign_waiting(&self, credential: &SigningCredential, now: Timestamp) {
        let waiting = self.lock().remove(&credential.facts().sha256).unwrap_or_default();
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            let batch: Vec<Waiting> = waiting.by_ref().take(MAX_BATCH).collect();
            let digests: Vec<_> = batch.iter().map(|message| &message.digests).collect();
            let signatures = evidence::sign_batch(&digests, credential, now);
            let mut signatures = signatures.map(Vec::into_iter).map_err(|error| chain(&error));
            for message in batch {
                let signature = match &mut signatures {
                    Ok(signatures) => signatures.next().map(Bytes::from).ok_or_else(|| "no signature was made".into()),
                    Err(why) => Err(why.clone()),
                };
                // Whoever waited may be gone.
                let _ = message.answer.send(signature);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CertificateHash, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use jiff::SignedDuration;
    use saatkond_pki::authority::{Authority, AuthoritySpec};
    use saatkond_pki::evidence::verify_signature_only;
    use saatkond_pki::key::{Algorithm, KeySource as _, SystemKeys};
    use saatkond_pki::leaf::{self, LeafRequest, Terms, Usage};
    use saatkond_pki::serial::Serial;

    use super::*;

    fn signing_credential() -> SigningCredential {
        let spec = AuthoritySpec {
            instance: "INST",
            generation: 1,
            algorithm: Algorithm::EcdsaP256,
            not_before: Timestamp::UNIX_EPOCH,
            lifetime: SignedDuration::from_hours(100),
            serial: Serial::from_random([1; 16]),
        };
        let (authority, key) =
            (Authority::create(&spec, &SystemKeys), SystemKeys.generate(Algorithm::EcdsaP256).unwrap());
        let request = LeafRequest {
            usage: Usage::Signing,
            common_name: "test".into(),
            uri: "saatkond://INST/GOV/100?use=signing&server=GOV/100/SS1&issue=1".into(),
            dns_names: Vec::new(),
        };
        let terms = Terms {
            now: Timestamp::UNIX_EPOCH,
            lifetime: SignedDuration::from_hours(50),
            retirement: SignedDuration::ZERO,
            serial: Serial::from_random([2; 16]),
        };
        let leaf = leaf::issue(&authority.unwrap(), &request, key.public(), &terms).unwrap();
        SigningCredential::new(leaf.der, key).unwrap()
    }

    fn message(number: usize) -> MessageDigests {
        MessageDigests::of_request(&number.to_be_bytes(), None)
    }

    #[tokio::test]
    async fn whoever_is_ready_shares_a_signature_and_who_is_alone_has_one() {
        let (signing, credential, now) = (Signing::default(), Arc::new(signing_credential()), Timestamp::UNIX_EPOCH);
        for count in [1, 2, 33, MAX_BATCH + 1] {
            let messages = (0..count).map(|number| signing.sign(message(number), &credential, now));
            for (number, signature) in join_all(messages).await.into_iter().enumerate() {
                let signature = signature.unwrap();
                verify_signature_only(&signature, &message(number)).unwrap();
                let is_alone = count == 1 || number == MAX_BATCH;
                assert_eq!(signature[0] == 0x30, is_alone, "{number} of {count}");
            }
        }
        assert!(signing.lock().is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_the_others_served() {
        let (signing, credential, now) = (Signing::default(), Arc::new(signing_credential()), Timestamp::UNIX_EPOCH);
        let mut first = Box::pin(signing.sign(message(1), &credential, now));
        assert!(futures_util::poll!(&mut first).is_pending());
        let second = signing.sign(message(2), &credential, now);
        drop(first);
        verify_signature_only(&second.await.unwrap(), &message(2)).unwrap();
    }

    #[tokio::test]
    async fn each_holder_signs_for_itself() {
        let (signing, now) = (Signing::default(), Timestamp::UNIX_EPOCH);
        let (one, other) = (Arc::new(signing_credential()), Arc::new(signing_credential()));
        let both = join_all([&one, &other].map(|credential| signing.sign(message(1), credential, now))).await;
        for (signature, credential) in both.into_iter().zip([one, other]) {
            let signature = signature.unwrap();
            assert_eq!(verify_signature_only(&signature, &message(1)).unwrap().leaf_der, credential.leaf_der());
        }
    }
}
