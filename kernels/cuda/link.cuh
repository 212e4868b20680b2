// What the number z that a network ends in says of a label, by the label's kind: `Link` of the ops' link.rs. From z itself,
// never from a rounded mean; sums in f64, because what counts is how far large numbers lie apart.
#pragma once

#include "math.cuh"

// A binary label, a count, any number.
enum Link : u32 { PROBABILITY = 0, RATE = 1, VALUE = 2 };

// ln sigma(x); NaN where x is not finite, so that it shows.
DEVICE double log_sigmoid(float x) {
  return (double)(math::smaller(x, 0.0f) + 0.0f * x) - math::log1p_of_unit(math::exp(-fabsf(x)));
}

// ln(e^a + e^b).
DEVICE double log_add(double a, double b) {
  // In this order a NaN comes through.
  const bool is_first_high = a > b;
  const double high = is_first_high ? a : b, low = is_first_high ? b : a;
  return high + math::log1p_of_unit(math::exp((float)(low - high)));
}

// The mean of the label; of a probability NaN where z is not finite.
DEVICE float mean_of(u32 link, float z) {
  if (link == VALUE) return z;
  return link == RATE ? math::exp(z) : math::sigmoid(z) + 0.0f * z;
}

// The derivative of the mean.
DEVICE float slope_of(u32 link, float z) {
  if (link != PROBABILITY) return link == RATE ? math::exp(z) : 1.0f;
  const float e = math::exp(-fabsf(z)), rest = 1.0f + e;
  return e / (rest * rest) + 0.0f * z;
}

// A square is twice what the other losses are, whose slope is a plain difference.
DEVICE float factor_of(u32 link) { return link == VALUE ? 2.0f : 1.0f; }

// The loss of z, and its derivative.
DEVICE double loss_of(u32 link, float z, float label) {
  if (link == RATE) return (double)math::exp(z) - (double)label * z;
  if (link == VALUE) return ((double)z - label) * ((double)z - label);
  return -(double)label * log_sigmoid(z) - (1.0 - label) * log_sigmoid(-z);
}

DEVICE float loss_slope(u32 link, float z, float label) { return factor_of(link) * (mean_of(link, z) - label); }

// How far the mean of z is from that of `teacher`.
DEVICE double divergence_of(u32 link, float teacher, float z) {
  const double apart = (double)teacher - z;
  if (link == RATE) return math::exp(teacher) * (apart - 1.0) + math::exp(z);
  if (link == VALUE) return apart * apart;
  return mean_of(link, teacher) * (log_sigmoid(teacher) - log_sigmoid(z)) +
         mean_of(link, -teacher) * (log_sigmoid(-teacher) - log_sigmoid(-z));
}

// Its derivatives at `teacher` and at z.
DEVICE float divergence_slope_of_teacher(u32 link, float teacher, float z) {
  return factor_of(link) * slope_of(link, teacher) * (teacher - z);
}

DEVICE float divergence_slope(u32 link, float teacher, float z) {
  return factor_of(link) * (mean_of(link, z) - mean_of(link, teacher));
}
