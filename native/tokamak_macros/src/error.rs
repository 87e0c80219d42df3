// SPDX-License-Identifier: Apache-2.0
//! `#[derive(OperationError)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Result};

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(
            input,
            "OperationError is derived for enums; implement it by hand for other types",
        ));
    };
    let kinds = data.variants.iter().map(|variant| {
        let name = &variant.ident;
        let kind = snake_case(&name.to_string());
        quote! { Self::#name { .. } => #kind }
    });
    let (name, (impl_generics, generics, condition)) =
        (&input.ident, input.generics.split_for_impl());
    Ok(quote! {
        impl #impl_generics ::tokamak::OperationError for #name #generics #condition {
            fn reason(&self) -> ::tokamak::reply::Reason {
                let kind = match self { #(#kinds),* };
                ::tokamak::reply::Reason::Kind(kind, ::std::string::ToString::to_string(self))
            }
        }
    })
}

/// `NotFound` is `not_found`, `HTTPError` is `http_error`.
fn snake_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let is = |index: usize, test: fn(&char) -> bool| characters.get(index).is_some_and(test);
    let mut snake = String::new();
    for (index, character) in characters.iter().enumerate() {
        if character.is_uppercase() && index > 0 && !snake.ends_with('_') {
            let is_within_capitals = is(index - 1, |before| before.is_uppercase())
                && !is(index + 1, |after| after.is_lowercase());
            if !is_within_capitals {
                snake.push('_');
            }
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn a_kind_is_its_variant_in_snake_case() {
        assert_eq!(snake_case("NotFound"), "not_found");
        assert_eq!(snake_case("Io"), "io");
        assert_eq!(snake_case("IO"), "io");
        assert_eq!(snake_case("HTTPError"), "http_error");
        assert_eq!(snake_case("BadURL"), "bad_url");
        assert_eq!(snake_case("Utf8Error"), "utf8_error");
        assert_eq!(snake_case("ABTest"), "ab_test");
        assert_eq!(snake_case("already_snake"), "already_snake");
    }

    #[test]
    fn every_variant_has_its_arm_whatever_it_holds() {
        let expanded = expand(&parse_quote! {
            enum Error { Plain, Tuple(String, u8), Named { field: u8 } }
        });
        let text = expanded
            .map(|tokens| tokens.to_string())
            .unwrap_or_default();
        for kind in ["\"plain\"", "\"tuple\"", "\"named\""] {
            assert!(text.contains(kind), "{kind} is not in {text}");
        }
    }

    #[test]
    fn a_type_that_is_no_enum_is_refused() {
        let refused = expand(&parse_quote! { struct Error; });
        assert!(refused.is_err_and(|error| error.to_string().contains("for enums")));
    }
}
