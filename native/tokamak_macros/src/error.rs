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

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, character) in name.chars().enumerate() {
        if character.is_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}
