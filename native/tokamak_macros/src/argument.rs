// SPDX-License-Identifier: Apache-2.0
//! An argument that comes from Erlang: which types it may have, and how it is decoded.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Type;

use crate::op::{first_argument, last_segment};

/// Why a parameter cannot be of this type. The compiler says so too, but of the code that the macro makes.
pub fn refusal(ty: &Type) -> Option<&'static str> {
    match ty {
        Type::Reference(_) => {
            Some("an operation owns its arguments: String instead of &str, Vec<T> instead of &[T]")
        }
        Type::ImplTrait(_) => Some("an operation has no generic parameters"),
        _ if !may_be_rustlers(ty) => None,
        _ => match last_segment(ty)?.as_str() {
            "Env" => Some("an operation outlives the NIF that calls it: it has no Env"),
            "Term" => Some("an operation owns its arguments: tokamak::Value instead of Term"),
            "Binary" => Some("an operation owns its arguments: tokamak::Bytes instead of Binary"),
            _ => None,
        },
    }
}

/// A type of one's own may have the name of one of rustler's: `crate::Term` is not taken for it.
fn may_be_rustlers(ty: &Type) -> bool {
    let Type::Path(path) = ty else {
        return false;
    };
    let segments = &path.path.segments;
    segments.len() == 1
        || segments
            .first()
            .is_some_and(|first| first.ident == "rustler")
}

/// The statement that decodes the argument at `index`. What is wrong with its type is told where it stands.
pub fn decode(name: &Ident, index: usize, ty: &Type) -> TokenStream {
    let expected = text(ty);
    let span = at(ty);
    let container = last_segment(ty);
    let holds_narrow = first_argument(ty).is_some_and(is_narrow);
    let decoder = match (container.as_deref(), holds_narrow) {
        (Some("Vec"), true) => quote_spanned! { span=> narrow_list },
        (Some("Vec"), false) => quote_spanned! { span=> list },
        (Some("Option"), true) => quote_spanned! { span=> narrow_option },
        _ if is_narrow(ty) => quote_spanned! { span=> narrow },
        _ => quote_spanned! { span=> arg },
    };
    quote_spanned! { span=> let #name: #ty = call.#decoder(#index, #expected)?; }
}

/// Where a type stands, with the names of the code that the macro makes.
pub fn at(ty: &impl ToTokens) -> Span {
    let first = ty.to_token_stream().into_iter().next();
    first.map_or_else(Span::call_site, |token| {
        token.span().resolved_at(Span::call_site())
    })
}

/// A type as one writes it, without the spaces between tokens.
pub fn text(ty: &Type) -> String {
    let mut text = quote!(#ty).to_string();
    for (spaced, written) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        ("( ", "("),
        (" )", ")"),
    ] {
        text = text.replace(spaced, written);
    }
    text
}

/// Integers that rustler cuts off where they do not fit, instead of refusing them.
fn is_narrow(ty: &Type) -> bool {
    let name = last_segment(ty);
    matches!(name.as_deref(), Some("u8" | "u16" | "i8" | "i16"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn a_type_is_told_as_it_is_written() {
        let types: [(Type, &str); 4] = [
            (parse_quote!(u64), "u64"),
            (
                parse_quote!(HashMap<String, Vec<u8>>),
                "HashMap<String, Vec<u8>>",
            ),
            (parse_quote!(Vec<crate::Point>), "Vec<crate::Point>"),
            (parse_quote!((i64, String)), "(i64, String)"),
        ];
        for (ty, expected) in types {
            assert_eq!(text(&ty), expected);
        }
    }

    #[test]
    fn what_belongs_to_the_calling_nif_is_refused() {
        let borrowed: [Type; 5] = [
            parse_quote!(&str),
            parse_quote!(&[u8]),
            parse_quote!(rustler::Term<'_>),
            parse_quote!(Binary),
            parse_quote!(Env<'_>),
        ];
        for ty in borrowed {
            assert!(refusal(&ty).is_some(), "{} is accepted", text(&ty));
        }
        for ty in [parse_quote!(Vec<tokamak::Value>), parse_quote!(crate::Term)] {
            assert_eq!(refusal(&ty), None, "{} is refused", text(&ty));
        }
    }

    #[test]
    fn integers_that_could_be_cut_off_have_a_decoder_of_their_own() {
        let decoders: [(Type, &str); 5] = [
            (parse_quote!(u8), "call . narrow ("),
            (parse_quote!(Option<u16>), "call . narrow_option ("),
            (parse_quote!(Vec<i16>), "call . narrow_list ("),
            (parse_quote!(Vec<u64>), "call . list ("),
            (parse_quote!(u64), "call . arg ("),
        ];
        let name = Ident::new("a", Span::call_site());
        for (ty, decoder) in decoders {
            let decoded = decode(&name, 0, &ty).to_string();
            assert!(decoded.contains(decoder), "{decoder} is not in {decoded}");
        }
    }
}
