/** From raw scores to probabilities and expected OKS, as in service/pose/calibration.py. */

/**
 * @typedef {object} Calibration
 * @property {number[]} offsets One for each curve.
 * @property {number[]} slopes
 * @property {[number, number, number] | null} presence
 */

const EDGE = 0.01;
const BOX_EDGE = 1e-6;
/** Expected OKS of the pose for which `minBoxScore` is computed. */
const GOOD_OKS = 0.75;

/**
 * @param {number} share
 * @param {number} [edge]
 */
function logit(share, edge = EDGE) {
  const inside = Math.min(Math.max(share, edge), 1 - edge);
  return Math.log(inside / (1 - inside));
}

/** @param {number} logOdds */
function logistic(logOdds) {
  return 1 / (1 + Math.exp(-logOdds));
}

/**
 * @param {Calibration | null} calibration Null leaves scores as they are.
 * @param {number} rawScore
 * @param {number} curve
 */
export function calibrate(calibration, rawScore, curve) {
  if (!calibration) return rawScore;
  return logistic(calibration.offsets[curve] + calibration.slopes[curve] * logit(rawScore));
}

/**
 * Expected OKS of a person: the mean of the keypoints' scores, each weighted by itself.
 *
 * @param {readonly number[]} scores
 */
export function expectedOks(scores) {
  const total = scores.reduce((sum, it) => sum + it, 0);
  return total > 0 ? scores.reduce((sum, it) => sum + it * it, 0) / total : 0;
}

/**
 * Probability that a box contains a person, given the detector's score and the pose.
 *
 * @param {Calibration | null} calibration
 * @param {number} boxScore 1 for a box that the caller gave, whose probability stays 1.
 * @param {number} poseOks
 */
export function personProbability(calibration, boxScore, poseOks) {
  if (!calibration?.presence || boxScore >= 1) return boxScore;
  const [offset, boxWeight, poseWeight] = calibration.presence;
  return logistic(offset + boxWeight * logit(boxScore, BOX_EDGE) + poseWeight * logit(poseOks));
}

/**
 * Detector score from which a good pose reaches a person score of `minScore`; at most that.
 *
 * @param {Calibration | null} calibration
 * @param {number} minScore
 */
export function minBoxScore(calibration, minScore) {
  if (!calibration?.presence) return minScore;
  const [offset, boxWeight, poseWeight] = calibration.presence;
  const poseOks = GOOD_OKS + (1 - GOOD_OKS) * minScore;
  const logOdds = (logit(minScore / poseOks, BOX_EDGE) - offset - poseWeight * logit(poseOks)) / boxWeight;
  return Math.min(minScore, logistic(logOdds));
}
