//! The filters that stand under one key.

/// Node numbers; the usual one without an allocation.
#[derive(Debug, Default)]
pub(super) enum List {
    #[default]
    Empty,
    One(u32),
    // Boxed, since a vector in place would make every entry larger for the sake of a few.
    #[expect(clippy::box_collection)]
    Many(Box<Vec<u32>>),
}

impl List {
    #[inline]
    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::Empty => &[],
            Self::One(number) => std::slice::from_ref(number),
            Self::Many(numbers) => numbers,
        }
    }

    pub(super) fn push(&mut self, number: u32) {
        match self {
            Self::Empty => *self = Self::One(number),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, number])),
            Self::Many(numbers) => numbers.push(number),
        }
    }

    /// Answers which number stands there now.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::One(_) => {
                *self = Self::Empty;
                None
            }
            Self::Many(numbers) => {
                numbers.swap_remove(at);
                let moved = numbers.get(at).copied();
                if let [only] = numbers[..] {
                    *self = Self::One(only);
                }
                moved
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Many(numbers) => size_of::<Vec<u32>>() + numbers.capacity() * size_of::<u32>(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_vector_whose_gaps_are_filled_from_the_end() {
        let (mut list, mut model) = (List::default(), Vec::new());
        for number in 0..200u32 {
            if number % 3 == 2 && !model.is_empty() {
                let at = number as usize * 7 % model.len();
                model.swap_remove(at);
                assert_eq!(list.swap_remove(at), model.get(at).copied());
            } else {
                model.push(number);
                list.push(number);
            }
            assert_eq!(list.as_slice(), model);
        }
        while !model.is_empty() {
            model.swap_remove(0);
            assert_eq!(list.swap_remove(0), model.first().copied());
        }
        assert_eq!(list.swap_remove(0), None);
        assert!(list.as_slice().is_empty() && list.memory() == 0);
    }
}
